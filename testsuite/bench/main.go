// Command bench compares keyturn with the ideal and with the documented curl
// loop, on one machine. It needs only Go, and curl for the curl methods: it
// starts a real Temporal server, a simulated Ops Manager and the worker.
//
//	go run ./testsuite/bench                      # about three minutes
//	go run ./testsuite/bench -quick               # half a minute
//	go run ./testsuite/bench -svg docs/benchmark.svg
//	go run ./testsuite/bench -growth              # 100 to 10,000 targets, 100 to 2,000 clusters in a project
//	go run ./testsuite/bench -workers 1,2,4
//	go run ./testsuite/bench -deployment 1,16     # about twelve minutes
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

	"keyturn/testsuite/support/childproc"
	"keyturn/workflows"
)

// Exit codes; a signal gives 128 plus its number.
const (
	exitFailed = 1
	exitUsage  = 2
	exitSignal = 128
)

// settings are the flags.
type settings struct {
	cases      []benchCase
	repeat     int
	output     string
	svg        string
	phases     bool
	latency    time.Duration
	growth     bool
	sizes      []int
	shards     int
	clusters   []int
	workers    []int
	deployment []int
	serverArgs []string
}

const (
	outputText = "text"
	outputJSON = "json"
)

func main() {
	ctx, stop := childproc.UntilSignal()
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
		return exitUsage
	}
	err = run(ctx, configured, stdout, stderr)
	var interrupted *childproc.Interruption
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
	cases := flags.String("cases", defaultCases, "`cases` to measure with every method, each one as TARGETS:LATENCY:IN-FLIGHT, separated by commas")
	quick := flags.Bool("quick", false, "measure only "+quickCases+" (half a minute)")
	flags.IntVar(&s.repeat, "repeat", 3, "number of runs of each method except the curl loop; the report shows median, minimum and maximum")
	flags.StringVar(&s.output, "o", outputText, "text or json")
	flags.StringVar(&s.svg, "svg", "", "write a bar chart of the shares of the ideal to `FILE`")
	flags.BoolVar(&s.phases, "phases", false, "show the phases of a rotation by keyturn")
	flags.BoolVar(&s.growth, "growth", false, "instead, measure whether the cost per target stays constant as fleets and clusters grow; fails if it does not")
	sizes := flags.String("sizes", "100,1000,10000", "targets of the fleets of -growth, multiples of ten; the first one is the baseline; empty for none")
	flags.IntVar(&s.shards, "shards", 1000, "shards of the single cluster of -growth; 0 for none")
	clusters := flags.String("clusters", "100,400,2000", "clusters of the projects of -growth, of three targets each; the first one is the baseline; empty for none")
	workers := flags.String("workers", "", "instead, measure the same load with these `numbers` of worker processes, for example 1,2,4")
	deployment := flags.String("deployment", "", "instead, measure rotations of a deployment's keys, 100 replica sets of 3 members, with these `numbers` of replica sets at a time, for example 1,16")
	flags.DurationVar(&s.latency, "latency", 10*time.Millisecond, "latency of each request with -growth, -workers and -deployment")
	server := flags.String("server-args", "", "additional `arguments` of temporal server start-dev; all other settings of the server are defaults")
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
	s.serverArgs = strings.Fields(*server)
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if s.cases, err = parseCases(*cases); err != nil {
		return s, fmt.Errorf("-cases: %w", err)
	}
	if *sizes != "" {
		if s.sizes, err = parseNumbers(*sizes, clusterTargets, maxFleet); err != nil {
			return s, fmt.Errorf("-sizes: %w", err)
		}
	}
	if *clusters != "" {
		if s.clusters, err = parseNumbers(*clusters, 1, maxProjectClusters); err != nil {
			return s, fmt.Errorf("-clusters: %w", err)
		}
	}
	if *workers != "" {
		if s.workers, err = parseNumbers(*workers, 1, maxWorkers); err != nil {
			return s, fmt.Errorf("-workers: %w", err)
		}
	}
	if *deployment != "" {
		if s.deployment, err = parseNumbers(*deployment, 1, workflows.MaxConcurrency); err != nil {
			return s, fmt.Errorf("-deployment: %w", err)
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
	case s.shards < 0 || s.shards > maxTargets:
		return fmt.Errorf("-shards: must be 0 to %d", maxTargets)
	case !slices.IsSorted(s.clusters):
		return errors.New("-clusters: must be in ascending order: the first one is the baseline")
	case !slices.IsSorted(s.sizes):
		return errors.New("-sizes: must be in ascending order: the first one is the baseline")
	case slices.ContainsFunc(s.sizes, func(size int) bool { return size%clusterTargets != 0 }):
		return fmt.Errorf("-sizes: must be multiples of %d, the targets of each cluster", clusterTargets)
	case s.growth && s.workers != nil, s.deployment != nil && (s.growth || s.workers != nil):
		return errors.New("set only one of -growth, -workers and -deployment")
	case s.svg != "" && (s.growth || s.workers != nil || s.deployment != nil):
		return errors.New("-svg: not available with -growth, -workers and -deployment")
	case s.deployment != nil && s.output != outputText:
		return errors.New("-deployment: only text")
	}
	return nil
}

// run measures what the settings ask for. When it returns, everything that it
// started has ended.
func run(ctx context.Context, s settings, stdout, stderr io.Writer) (err error) {
	r, err := newHarness(ctx, s.serverArgs, stderr)
	if err != nil {
		return causeOf(ctx, err)
	}
	defer func() { err = errors.Join(causeOf(ctx, err), r.stop()) }()
	switch {
	case s.growth:
		return r.runGrowth(ctx, s, stdout)
	case s.deployment != nil:
		return r.runDeployments(ctx, s, stdout)
	case s.workers != nil:
		return r.runWorkers(ctx, s, stdout)
	default:
		return r.runCases(ctx, s, stdout)
	}
}
