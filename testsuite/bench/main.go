// Command bench measures keyturn beside the ideal and beside the documented curl
// loop, on one machine that needs nothing but Go, and curl for its columns: it
// starts a real Temporal server, a simulated Ops Manager and the worker itself.
//
//	go run ./testsuite/bench                      # about three minutes
//	go run ./testsuite/bench -quick               # half a minute
//	go run ./testsuite/bench -svg docs/benchmark.svg
//	go run ./testsuite/bench -growth              # 100, 1,000 and 10,000 targets
//	go run ./testsuite/bench -workers 1,2,4
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"keyturn/testsuite/programs"
)

// Exit codes; a signal is told as shells tell it.
const (
	exitFailed   = 1
	exitWrongUse = 2
	exitSignal   = 128
)

// settings are the flags.
type settings struct {
	cases    []benchCase
	repeat   int
	output   string
	svg      string
	phases   bool
	latency  time.Duration
	growth   bool
	sizes    []int
	shards   int
	workers  []int
	toServer []string
}

const (
	outputText = "text"
	outputJSON = "json"
)

func main() {
	ctx, stop := programs.UntilSignal()
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// execute runs the command line and returns the exit code.
func execute(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	configured, err := parse(arguments, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "bench:", err)
		return exitWrongUse
	}
	err = run(ctx, configured, stdout, stderr)
	var interrupted *programs.Interruption
	switch {
	case err == nil:
		return 0
	case errors.As(err, &interrupted):
		fmt.Fprintln(stderr, "bench:", interrupted)
		return exitSignal + int(interrupted.Signal)
	}
	fmt.Fprintln(stderr, "bench:", err)
	return exitFailed
}

func parse(arguments []string, stderr io.Writer) (s settings, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	cases := flags.String("cases", defaultCases, "`TARGETS:LATENCY:IN-FLIGHT,...`: what is measured in every way")
	quick := flags.Bool("quick", false, "measure "+quickCases+", for half a minute")
	flags.IntVar(&s.repeat, "repeat", 3, "how often each is run, but for the curl loop; the median is shown with the least and the most")
	flags.StringVar(&s.output, "o", outputText, "text or json")
	flags.StringVar(&s.svg, "svg", "", "`FILE` to draw a picture of the shares of the ideal to")
	flags.BoolVar(&s.phases, "phases", false, "show where keyturn's time goes, too")
	flags.BoolVar(&s.growth, "growth", false, "instead: whether a target's cost stays the same as fleets and clusters grow; fails where it does not")
	sizes := flags.String("sizes", "100,1000,10000", "targets of the fleets of -growth, tens; the others are compared with the first")
	flags.IntVar(&s.shards, "shards", 1000, "shards of the one cluster of -growth")
	workers := flags.String("workers", "", "instead: the same load with as many worker processes, as in `1,2,4`")
	flags.DurationVar(&s.latency, "latency", 10*time.Millisecond, "latency of a request with -growth and -workers")
	server := flags.String("server-args", "", "further arguments of `temporal server start-dev`; none of the server's settings is tuned otherwise")
	switch err := flags.Parse(arguments); {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stderr)
		flags.Usage()
		return s, err
	case err != nil:
		return s, err
	}
	if *quick {
		*cases = quickCases
	}
	s.toServer = strings.Fields(*server)
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if s.cases, err = parseCases(*cases); err != nil {
		return s, fmt.Errorf("-cases: %w", err)
	}
	if s.sizes, err = parseNumbers(*sizes, clusterTargets, maxFleet); err != nil {
		return s, fmt.Errorf("-sizes: %w", err)
	}
	if *workers != "" {
		if s.workers, err = parseNumbers(*workers, 1, maxWorkers); err != nil {
			return s, fmt.Errorf("-workers: %w", err)
		}
	}
	return s, s.check()
}

func (s settings) check() error {
	switch {
	case s.repeat < 1:
		return errors.New("-repeat: must be 1 or more")
	case s.output != outputText && s.output != outputJSON:
		return errors.New("-o: must be text or json")
	case s.latency < time.Millisecond || s.latency > maxLatency:
		return fmt.Errorf("-latency: must be 1ms to %s", maxLatency)
	case s.shards < 1 || s.shards > maxTargets:
		return fmt.Errorf("-shards: must be 1 to %d", maxTargets)
	case !slices.IsSorted(s.sizes):
		return errors.New("-sizes: must grow: the others are compared with the first")
	case slices.ContainsFunc(s.sizes, func(size int) bool { return size%clusterTargets != 0 }):
		return fmt.Errorf("-sizes: must be tens: clusters have %d targets", clusterTargets)
	case s.growth && s.workers != nil:
		return errors.New("-growth and -workers are two different measurements")
	case s.svg != "" && (s.growth || s.workers != nil):
		return errors.New("-svg: there is a picture of the cases only")
	}
	return nil
}

// run measures what the settings ask for. Nothing that it has started is left
// when it returns.
func run(ctx context.Context, s settings, stdout, stderr io.Writer) (err error) {
	r, err := newRig(ctx, s.toServer, stderr)
	if err != nil {
		return causeOf(ctx, err)
	}
	defer func() { err = errors.Join(causeOf(ctx, err), r.stop()) }()
	switch {
	case s.growth:
		return r.runGrowth(ctx, s, stdout)
	case s.workers != nil:
		return r.runWorkers(ctx, s, stdout)
	default:
		return r.runCases(ctx, s, stdout)
	}
}
