package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"keyturn/workflows"
)

// requestsPerTarget is the number of requests for an undisturbed target: GET,
// PUT, GET.
const requestsPerTarget = 3

// Limits of a case. The limit of requests in flight is the maximum concurrency
// of a rotation.
const (
	maxTargets  = 5000
	maxInFlight = 64
	maxLatency  = time.Minute
)

// benchCase is a setting in which all methods are measured.
type benchCase struct {
	targets  int
	latency  time.Duration // of each request
	inFlight int           // concurrent requests
}

// The cases measured by default and with -quick. They take about three minutes
// and half a minute.
const (
	defaultCases = "16:100ms:4,64:20ms:8,64:200ms:8,128:50ms:16"
	quickCases   = "16:50ms:4,64:20ms:8"
)

// concurrency is the number of targets that keyturn rotates in parallel: twice
// the allowed requests in flight.
func (c benchCase) concurrency() int { return min(2*c.inFlight, workflows.MaxConcurrency) }

// ideal is the time that the requests alone take.
func (c benchCase) ideal() time.Duration {
	return requestsPerTarget * time.Duration(c.targets) * c.latency / time.Duration(c.inFlight)
}

func (c benchCase) String() string {
	return fmt.Sprintf("%d:%s:%d", c.targets, c.latency, c.inFlight)
}

// parseCases parses cases in the format "TARGETS:LATENCY:IN-FLIGHT", separated
// by commas.
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
		return c, fmt.Errorf("must be TARGETS:LATENCY:IN-FLIGHT, for example 64:200ms:8")
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

// parseNumbers parses numbers separated by commas.
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
