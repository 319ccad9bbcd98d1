package main

import (
	"context"
	"fmt"

	"keyturn/testsuite/simulator"
)

// warmUpTargets is the size of the cluster that is rotated first.
const warmUpTargets = 2

// method is the result of one method in one case, compared with the ideal.
type method struct {
	Seconds spread `json:"seconds"`
	Share   spread `json:"shareOfIdeal"`
	Runs    int    `json:"runs"`
	// Requests are the requests of the run with the median time.
	Requests requestCounts `json:"requests"`
	// RequestsPerTarget counts all authenticated requests.
	RequestsPerTarget float64 `json:"requestsPerTarget"`
}

// costs are the costs of a rotation by keyturn in Temporal and in the worker:
// medians of the runs, except for the memory.
type costs struct {
	EventsPerTarget  float64 `json:"eventsPerTarget"`
	BytesPerTarget   float64 `json:"bytesPerTarget"` // of history
	ActionsPerTarget float64 `json:"actionsPerTarget"`
	// Actions are the actions of one rotation, by type.
	Actions actions `json:"actions"`
	// PeakMemory is the peak memory of the worker process, in bytes, over all
	// its rotations.
	PeakMemory uint64 `json:"peakMemory"`
}

// comparison is one case with all methods.
type comparison struct {
	Targets        int     `json:"targets"`
	LatencySeconds float64 `json:"latencySeconds"`
	InFlight       int     `json:"inFlight"`
	IdealSeconds   float64 `json:"idealSeconds"`

	// Keyturn has the worker's limit at InFlight, and rotates twice as many
	// targets in parallel: targets that wait for Temporal do not delay
	// requests.
	Keyturn method `json:"keyturn"`
	Costs   costs  `json:"costs"`
	Phases  phases `json:"phases"`

	// KeyturnInStep rotates no more than InFlight targets in parallel.
	KeyturnInStep method `json:"keyturnInStep"`

	// Nil if curl is not installed.
	CurlParallel *method `json:"curlParallel"`
	CurlLoop     *method `json:"curlLoop"`

	measured benchCase
}

// compare measures the case with every method. The curl loop runs once: it is
// by far the slowest, and varies the least.
func (r *harness) compare(ctx context.Context, c benchCase, repeat int, withCurl bool) (comparison, error) {
	var small, orders cluster
	s, err := r.newTarget(ctx, c.latency, 1, c.inFlight, func(om *simulator.Server) {
		small = addCluster(om, project, "warmup", warmUpTargets)
		orders = addCluster(om, project, "orders", c.targets)
	})
	if err != nil {
		return comparison{}, err
	}
	defer s.close()
	compared := comparison{
		Targets: c.targets, LatencySeconds: c.latency.Seconds(), InFlight: c.inFlight,
		IdealSeconds: c.ideal().Seconds(), measured: c,
	}
	if err := s.measureKeyturn(ctx, &compared, small, orders, repeat); err != nil {
		return compared, fmt.Errorf("%s, keyturn: %w", c, s.withWorkerLogs(err))
	}
	if withCurl {
		if err := s.measureCurl(ctx, &compared, small, orders, repeat); err != nil {
			return compared, fmt.Errorf("%s, %w", c, err)
		}
	}
	return compared, nil
}

func (s *target) measureKeyturn(ctx context.Context, to *comparison, small, orders cluster, repeat int) error {
	s.harness.progressf("%s: keyturn, %d times", to.measured, repeat)
	if err := s.warmUp(ctx, small); err != nil {
		return err
	}
	before, err := s.harness.readActions(ctx)
	if err != nil {
		return err
	}
	rotations, err := s.repeat(ctx, repeat, orders, to.measured.concurrency(), to.InFlight)
	if err != nil {
		return err
	}
	after, err := s.harness.readActions(ctx)
	if err != nil {
		return err
	}
	middle := rotations[middleOf(secondsOf(rotations))]
	if to.Phases, err = s.phasesOf(ctx, middle); err != nil {
		return err
	}
	to.Keyturn = methodOf(to.measured, secondsOf(rotations), middle.requests)
	to.Costs = costsOf(rotations, after.since(before, repeat), to.Targets)
	s.harness.progressf("%s: keyturn with concurrency = in flight, %d times", to.measured, repeat)
	inStep, err := s.repeat(ctx, repeat, orders, to.InFlight, to.InFlight)
	if err != nil {
		return err
	}
	to.KeyturnInStep = methodOf(to.measured, secondsOf(inStep), inStep[middleOf(secondsOf(inStep))].requests)
	to.Costs.PeakMemory = stopAndMeasureMemory(s.workers)
	return nil
}

// repeat measures a rotation several times.
func (s *target) repeat(ctx context.Context, times int, c cluster, concurrency, inFlight int) (rotations []rotation, err error) {
	for range times {
		rotated, err := s.rotate(ctx, c, concurrency, inFlight)
		if err != nil {
			return nil, err
		}
		rotations = append(rotations, rotated)
	}
	return rotations, nil
}

func (s *target) measureCurl(ctx context.Context, to *comparison, small, orders cluster, repeat int) error {
	if _, _, err := s.curlLoop(ctx, small); err != nil {
		return err
	}
	s.harness.progressf("%s: curl, %d in parallel, %d times", to.measured, to.InFlight, repeat)
	var seconds []float64
	var accounts []requestCounts
	for range repeat {
		took, counted, err := s.curlParallel(ctx, orders, to.InFlight)
		if err != nil {
			return err
		}
		seconds, accounts = append(seconds, took), append(accounts, counted)
	}
	parallel := methodOf(to.measured, seconds, accounts[middleOf(seconds)])
	s.harness.progressf("%s: curl, sequential, once", to.measured)
	took, counted, err := s.curlLoop(ctx, orders)
	if err != nil {
		return err
	}
	loop := methodOf(to.measured, []float64{took}, counted)
	to.CurlParallel, to.CurlLoop = &parallel, &loop
	return nil
}

func secondsOf(rotations []rotation) (seconds []float64) {
	for _, r := range rotations {
		seconds = append(seconds, r.seconds)
	}
	return seconds
}

func methodOf(c benchCase, seconds []float64, counted requestCounts) method {
	took := spreadOf(seconds)
	return method{
		Seconds: took, Share: shareOfIdeal(c.ideal(), took), Runs: len(seconds), Requests: counted,
		RequestsPerTarget: float64(counted.KeyRequests+counted.OtherRequests) / float64(c.targets),
	}
}

func costsOf(rotations []rotation, counted actions, targets int) costs {
	var events, bytes []float64
	for _, r := range rotations {
		events = append(events, float64(r.histories.events)/float64(targets))
		bytes = append(bytes, float64(r.histories.bytes)/float64(targets))
	}
	return costs{
		EventsPerTarget: spreadOf(events).Median, BytesPerTarget: spreadOf(bytes).Median,
		ActionsPerTarget: counted.sum() / float64(targets), Actions: counted,
	}
}
