package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"keyturn/workflows"
)

// requestsPerTarget is what an undisturbed target costs: GET, PUT, GET.
const requestsPerTarget = 3

// Limits of a case; those of the requests in flight are the rotation's.
const (
	maxTargets  = 5000
	maxInFlight = 64
	maxLatency  = time.Minute
)

// benchCase is a setting that every way to rotate is measured in.
type benchCase struct {
	targets  int
	latency  time.Duration // of each request
	inFlight int           // requests at a time
}

// The cases that are measured unless -cases picks others. They end within three
// minutes, and within half a minute.
const (
	defaultCases = "16:100ms:4,64:20ms:8,64:200ms:8,128:50ms:16"
	quickCases   = "16:50ms:4,64:20ms:8"
)

// concurrency is how many targets keyturn has in work: twice as many as there
// may be requests in flight.
func (c benchCase) concurrency() int { return min(2*c.inFlight, workflows.MaxConcurrency) }

// ideal is how long the case takes where the requests are all there is.
func (c benchCase) ideal() time.Duration {
	return requestsPerTarget * time.Duration(c.targets) * c.latency / time.Duration(c.inFlight)
}

func (c benchCase) String() string {
	return fmt.Sprintf("%d:%s:%d", c.targets, c.latency, c.inFlight)
}

// parseCases reads cases as "TARGETS:LATENCY:IN-FLIGHT", separated by commas.
func parseCases(text string) ([]benchCase, error) {
	var cases []benchCase
	for one := range strings.SplitSeq(text, ",") {
		parsed, err := parseCase(strings.TrimSpace(one))
		if err != nil {
			return nil, fmt.Errorf("case %q: %w", one, err)
		}
		cases = append(cases, parsed)
	}
	return cases, nil
}

func parseCase(text string) (c benchCase, err error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return c, fmt.Errorf("must be TARGETS:LATENCY:IN-FLIGHT, as in 64:200ms:8")
	}
	if c.targets, err = numberWithin(parts[0], 1, maxTargets); err != nil {
		return c, fmt.Errorf("targets %w", err)
	}
	if c.latency, err = time.ParseDuration(parts[1]); err != nil || c.latency < time.Millisecond || c.latency > maxLatency {
		return c, fmt.Errorf("latency must be 1ms to %s", maxLatency)
	}
	if c.inFlight, err = numberWithin(parts[2], 1, min(c.targets, maxInFlight)); err != nil {
		return c, fmt.Errorf("in flight %w", err)
	}
	return c, nil
}

// parseNumbers reads numbers that commas separate.
func parseNumbers(text string, lowest, highest int) ([]int, error) {
	var numbers []int
	for one := range strings.SplitSeq(text, ",") {
		number, err := numberWithin(strings.TrimSpace(one), lowest, highest)
		if err != nil {
			return nil, fmt.Errorf("%q %w", one, err)
		}
		numbers = append(numbers, number)
	}
	return numbers, nil
}

func numberWithin(text string, lowest, highest int) (int, error) {
	number, err := strconv.Atoi(text)
	if err != nil || number < lowest || number > highest {
		return 0, fmt.Errorf("must be %d to %d", lowest, highest)
	}
	return number, nil
}
