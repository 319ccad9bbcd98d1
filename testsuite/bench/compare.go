package main

import (
	"context"
	"fmt"

	"keyturn/testsuite/simulator"
)

// warmUpTargets are those of the small cluster that is rotated first.
const warmUpTargets = 2

// way is what one way to rotate took in one case, beside the ideal.
type way struct {
	Seconds spread `json:"seconds"`
	Share   spread `json:"shareOfIdeal"`
	Runs    int    `json:"runs"`
	// Account is that of the run of the median time.
	Account account `json:"account"`
	// RequestsPerTarget counts all requests with right credentials.
	RequestsPerTarget float64 `json:"requestsPerTarget"`
}

// costs are what a rotation by keyturn costs elsewhere than at Ops Manager; the
// medians of the runs, but for the memory.
type costs struct {
	EventsPerTarget  float64 `json:"eventsPerTarget"`
	BytesPerTarget   float64 `json:"bytesPerTarget"` // of history
	ActionsPerTarget float64 `json:"actionsPerTarget"`
	// Actions are those of one rotation, by type.
	Actions actions `json:"actions"`
	// PeakMemory of the worker's process, in bytes, over all its rotations.
	PeakMemory uint64 `json:"peakMemory"`
}

// comparison is one case with all ways.
type comparison struct {
	Targets        int     `json:"targets"`
	LatencySeconds float64 `json:"latencySeconds"`
	InFlight       int     `json:"inFlight"`
	IdealSeconds   float64 `json:"idealSeconds"`

	// Keyturn has the worker's limit at InFlight, and twice as many targets in
	// work: those that wait for Temporal keep no request from going out.
	Keyturn way    `json:"keyturn"`
	Costs   costs  `json:"costs"`
	Phases  phases `json:"phases"`

	// KeyturnInStep has no more than InFlight targets in work.
	KeyturnInStep way `json:"keyturnInStep"`

	// Nil where curl is missing.
	CurlParallel *way `json:"curlParallel"`
	CurlLoop     *way `json:"curlLoop"`

	measured benchCase
}

// compare measures the case in every way. The curl loop is run once: it is the
// slowest by far, and varies the least.
func (r *rig) compare(ctx context.Context, c benchCase, repeat int, withCurl bool) (comparison, error) {
	var small, orders cluster
	s, err := r.newSite(ctx, c.latency, 1, c.inFlight, func(om *simulator.Server) {
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
		return compared, fmt.Errorf("%s, keyturn: %w", c, s.explain(err))
	}
	if withCurl {
		if err := s.measureCurl(ctx, &compared, small, orders, repeat); err != nil {
			return compared, fmt.Errorf("%s, %w", c, err)
		}
	}
	return compared, nil
}

func (s *site) measureKeyturn(ctx context.Context, to *comparison, small, orders cluster, repeat int) error {
	s.rig.tell("%s: keyturn, %d times", to.measured, repeat)
	if err := s.warmUp(ctx, small); err != nil {
		return err
	}
	before, err := s.rig.readActions(ctx)
	if err != nil {
		return err
	}
	rotations, err := s.repeat(ctx, repeat, orders, to.measured.concurrency(), to.InFlight)
	if err != nil {
		return err
	}
	after, err := s.rig.readActions(ctx)
	if err != nil {
		return err
	}
	middle := rotations[middleOf(secondsOf(rotations))]
	if to.Phases, err = s.phasesOf(ctx, middle); err != nil {
		return err
	}
	to.Keyturn = wayOf(to.measured, secondsOf(rotations), middle.account)
	to.Costs = costsOf(rotations, after.since(before, repeat), to.Targets)
	s.rig.tell("%s: keyturn with as many targets in work, %d times", to.measured, repeat)
	inStep, err := s.repeat(ctx, repeat, orders, to.InFlight, to.InFlight)
	if err != nil {
		return err
	}
	to.KeyturnInStep = wayOf(to.measured, secondsOf(inStep), inStep[middleOf(secondsOf(inStep))].account)
	to.Costs.PeakMemory = endAndWeigh(s.workers)
	return nil
}

// repeat measures a rotation so many times.
func (s *site) repeat(ctx context.Context, times int, c cluster, concurrency, inFlight int) (rotations []rotation, err error) {
	for range times {
		rotated, err := s.rotate(ctx, c, concurrency, inFlight)
		if err != nil {
			return nil, err
		}
		rotations = append(rotations, rotated)
	}
	return rotations, nil
}

func (s *site) measureCurl(ctx context.Context, to *comparison, small, orders cluster, repeat int) error {
	if _, _, err := s.curlLoop(ctx, small); err != nil {
		return err
	}
	s.rig.tell("%s: curl, %d at a time, %d times", to.measured, to.InFlight, repeat)
	var seconds []float64
	var accounts []account
	for range repeat {
		took, counted, err := s.curlParallel(ctx, orders, to.InFlight)
		if err != nil {
			return err
		}
		seconds, accounts = append(seconds, took), append(accounts, counted)
	}
	parallel := wayOf(to.measured, seconds, accounts[middleOf(seconds)])
	s.rig.tell("%s: curl, one after the other, once", to.measured)
	took, counted, err := s.curlLoop(ctx, orders)
	if err != nil {
		return err
	}
	loop := wayOf(to.measured, []float64{took}, counted)
	to.CurlParallel, to.CurlLoop = &parallel, &loop
	return nil
}

func secondsOf(rotations []rotation) (seconds []float64) {
	for _, r := range rotations {
		seconds = append(seconds, r.seconds)
	}
	return seconds
}

func wayOf(c benchCase, seconds []float64, counted account) way {
	took := spreadOf(seconds)
	return way{
		Seconds: took, Share: shareOfIdeal(c.ideal(), took), Runs: len(seconds), Account: counted,
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
