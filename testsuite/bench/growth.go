package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"keyturn/testsuite/simulator"
)

// The fleets of -growth.
const (
	clusterTargets     = 10 // of each cluster: nine shards and a config server
	clustersPerProject = 10 // so that listing a project costs the same in every fleet
	maxFleet           = 100_000

	fleetClustersAtATime = 4
	fleetConcurrency     = 4 // of each cluster
	fleetInFlight        = fleetClustersAtATime * fleetConcurrency
	fleetListing         = 4 // projects that a fleet lists at a time, while it rotates
)

// What must hold of each size, beside the smallest.
const (
	mostCostGrowth   = 1.25
	mostMemoryGrowth = 1.5
	mostEvents       = 5_000
	mostPayload      = 256 << 10
)

// growthRow is what one size cost.
type growthRow struct {
	Name    string `json:"name"`
	Targets int    `json:"targets"`
	Runs    int    `json:"workflowRuns"`

	MillisecondsPerTarget float64 `json:"millisecondsPerTarget"`
	EventsPerTarget       float64 `json:"eventsPerTarget"`
	ActionsPerTarget      float64 `json:"actionsPerTarget"`
	BytesPerTarget        float64 `json:"bytesPerTarget"`

	BiggestHistory    int64  `json:"biggestHistoryEvents"`
	BiggestHistoryRun string `json:"biggestHistoryWorkflow"`
	BiggestPayload    int64  `json:"biggestPayloadBytes"`
	// Scanned is how many histories, the biggest, were searched for it.
	Scanned    int     `json:"historiesScanned"`
	PeakMemory uint64  `json:"peakMemory"`
	Account    account `json:"account"`
	Actions    actions `json:"actions"`
}

// growthReport is the report of all sizes.
type growthReport struct {
	Machine        machine     `json:"machine"`
	LatencySeconds float64     `json:"latencySeconds"`
	InFlight       int         `json:"inFlight"`
	Sizes          []growthRow `json:"sizes"`
	Verdicts       []verdict   `json:"verdicts"`
}

// load is what one size of the growth rotates.
type load struct {
	name     string
	populate func(*simulator.Server)
	// warmUp and rotate return when the rotation has reached every target.
	warmUp, rotate func(context.Context, *site) error
	// targets and workflows (that end, however often they continue as new) are
	// known when the Ops Manager is populated.
	targets   []string
	workflows int
	inFlight  int // requests at a time, at the most
}

// fleetLoad is RotateFleet of clusters of ten targets.
func fleetLoad(targets int) *load {
	l := &load{name: fmt.Sprintf("fleet of %d targets", targets), workflows: 1 + targets/clusterTargets, inFlight: fleetInFlight + fleetListing}
	l.populate = func(om *simulator.Server) { l.targets = addFleet(om, targets) }
	l.warmUp = func(ctx context.Context, s *site) error { return s.rotateFleet(ctx, warmUpFleet, 1) }
	l.rotate = func(ctx context.Context, s *site) error {
		return s.rotateFleet(ctx, measuredFleet, targets/clusterTargets)
	}
	return l
}

// clusterLoad is RotateCluster of one cluster.
func clusterLoad(targets int) *load {
	var small, orders cluster
	l := &load{name: fmt.Sprintf("one cluster of %d targets", targets), workflows: 1, inFlight: min(fleetInFlight, targets)}
	l.populate = func(om *simulator.Server) {
		small = addCluster(om, project, "warmup", warmUpTargets)
		orders = addCluster(om, project, "orders", targets)
		l.targets = orders.targets
	}
	l.warmUp = func(ctx context.Context, s *site) error { return s.rotateCluster(ctx, small) }
	l.rotate = func(ctx context.Context, s *site) error { return s.rotateCluster(ctx, orders) }
	return l
}

func (s *site) rotateCluster(ctx context.Context, c cluster) error {
	started, err := s.start(ctx, c, min(fleetInFlight, len(c.targets)))
	if err != nil {
		return causeOf(ctx, err)
	}
	_, err = s.await(ctx, c, started)
	return err
}

// runGrowth measures the sizes one after the other, each with a worker of its
// own, and compares them with the first. What grows too much is an error.
func (r *rig) runGrowth(ctx context.Context, s settings, stdout io.Writer) error {
	var loads []*load
	for _, targets := range s.sizes {
		loads = append(loads, fleetLoad(targets))
	}
	return r.reportGrowth(ctx, append(loads, clusterLoad(s.shards+1)), s, stdout)
}

func (r *rig) reportGrowth(ctx context.Context, loads []*load, s settings, stdout io.Writer) (err error) {
	report := growthReport{LatencySeconds: s.latency.Seconds(), InFlight: fleetInFlight}
	if report.Machine, err = r.machine(ctx); err != nil {
		return err
	}
	for _, l := range loads {
		row, err := r.grow(ctx, l, s.latency)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		report.Sizes = append(report.Sizes, row)
	}
	report.Verdicts = verdictsOf(report.Sizes)
	if s.output == outputJSON {
		err = writeJSON(stdout, report)
	} else {
		_, err = io.WriteString(stdout, report.text())
	}
	return errors.Join(err, failureOf(report.Verdicts))
}

// grow measures one size.
func (r *rig) grow(ctx context.Context, l *load, latency time.Duration) (row growthRow, err error) {
	s, err := r.newSite(ctx, latency, 1, 0, l.populate)
	if err != nil {
		return row, err
	}
	defer s.close()
	ctx, stop := s.whileWorkersRun(ctx)
	defer stop()
	if row, err = s.grow(ctx, l); err != nil {
		return row, s.explain(err)
	}
	stop()
	row.PeakMemory = endAndWeigh(s.workers)
	return row, nil
}

func (s *site) grow(ctx context.Context, l *load) (row growthRow, err error) {
	s.rig.tell("%s", l.name)
	if err := l.warmUp(ctx, s); err != nil {
		return row, fmt.Errorf("warming up: %w", err)
	}
	before, err := s.rig.readActions(ctx)
	if err != nil {
		return row, err
	}
	s.om.ResetLedger()
	begun := time.Now()
	if err := l.rotate(ctx, s); err != nil {
		return row, err
	}
	took := time.Since(begun)
	row = growthRow{Name: l.name, Targets: len(l.targets)}
	if row.Account, err = accountOf(s.om.Ledger(), l.targets, l.inFlight); err != nil {
		return row, err
	}
	runs, err := s.runsSince(ctx, begun, l.workflows)
	if err != nil {
		return row, err
	}
	after, err := s.rig.readActions(ctx)
	if err != nil {
		return row, err
	}
	row.Actions = after.since(before, 1)
	row.fill(took, historiesOf(runs))
	row.BiggestPayload, row.Scanned, err = s.biggestPayload(ctx, runs)
	return row, err
}

func (row *growthRow) fill(took time.Duration, h histories) {
	perTarget := func(all float64) float64 { return all / float64(row.Targets) }
	row.Runs = h.runs
	row.MillisecondsPerTarget = perTarget(took.Seconds() * 1000)
	row.EventsPerTarget = perTarget(float64(h.events))
	row.BytesPerTarget = perTarget(float64(h.bytes))
	row.ActionsPerTarget = perTarget(row.Actions.sum())
	row.BiggestHistory, row.BiggestHistoryRun = h.biggestHistory, h.biggestHistoryRun
}

// verdict is whether one figure of one size is within its bound.
type verdict struct {
	Size   string  `json:"size"`
	Figure string  `json:"figure"`
	Value  float64 `json:"value"`
	Most   float64 `json:"most"`
	// First is the smallest size's figure, where the bound is a multiple of it.
	First  float64 `json:"first,omitempty"`
	Passed bool    `json:"passed"`
}

// verdictsOf compares the sizes with the first one, which has its own bounds,
// too.
func verdictsOf(sizes []growthRow) (verdicts []verdict) {
	for i, row := range sizes {
		if i > 0 {
			verdicts = append(verdicts, row.comparedWith(sizes[0])...)
		}
		verdicts = append(verdicts,
			bounded(row.Name, "biggest history, events", float64(row.BiggestHistory), mostEvents),
			bounded(row.Name, "biggest payload, bytes", float64(row.BiggestPayload), mostPayload))
	}
	return verdicts
}

func (row growthRow) comparedWith(first growthRow) []verdict {
	grown := func(figure string, value, of, by float64) verdict {
		v := bounded(row.Name, figure, value, of*by)
		v.First = of
		return v
	}
	return []verdict{
		grown("ms a target", row.MillisecondsPerTarget, first.MillisecondsPerTarget, mostCostGrowth),
		grown("events a target", row.EventsPerTarget, first.EventsPerTarget, mostCostGrowth),
		grown("actions a target", row.ActionsPerTarget, first.ActionsPerTarget, mostCostGrowth),
		grown("bytes a target", row.BytesPerTarget, first.BytesPerTarget, mostCostGrowth),
		grown("worker's peak memory, bytes", float64(row.PeakMemory), float64(first.PeakMemory), mostMemoryGrowth),
	}
}

func bounded(size, figure string, value, most float64) verdict {
	return verdict{Size: size, Figure: figure, Value: value, Most: most, Passed: value <= most}
}

func failureOf(verdicts []verdict) error {
	failed := 0
	for _, v := range verdicts {
		if !v.Passed {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d figures grow beyond their bounds", failed, len(verdicts))
	}
	return nil
}

func (g growthReport) text() string {
	sizes := newTable("", "targets", "ms a target", "events a target", "actions a target", "bytes a target",
		"biggest history", "biggest payload", "worker's peak memory", "workflow runs")
	for _, row := range g.Sizes {
		sizes.AppendRow(table.Row{
			row.Name, row.Targets, fmt.Sprintf("%.2f", row.MillisecondsPerTarget), fmt.Sprintf("%.2f", row.EventsPerTarget),
			fmt.Sprintf("%.2f", row.ActionsPerTarget), fmt.Sprintf("%.0f", row.BytesPerTarget), fmt.Sprintf("%d events", row.BiggestHistory),
			fmt.Sprintf("%.1f KiB", float64(row.BiggestPayload)/(1<<10)), megabytes(row.PeakMemory), row.Runs,
		})
	}
	var b strings.Builder
	fmt.Fprintf(&b, "keyturn's growth: %s\n\n%s\n\n", g.Machine, sizes.Render())
	for _, v := range g.Verdicts {
		fmt.Fprintln(&b, v)
	}
	fmt.Fprintf(&b, `
Clusters of %d targets, %d clusters a project; %d clusters at a time, %d targets of each; %.0f ms a request. The
bounds are %.2f times the smallest fleet's cost a target, %.1f times its worker's memory. The biggest payload was
searched in each size's biggest histories, %d at the most; the events and bytes are those of all runs.
`, clusterTargets, clustersPerProject, fleetClustersAtATime, fleetConcurrency, g.LatencySeconds*1000,
		mostCostGrowth, mostMemoryGrowth, maxScanned)
	return b.String()
}

func (v verdict) String() string {
	word := "PASS"
	if !v.Passed {
		word = "FAIL"
	}
	text := fmt.Sprintf("%s  %s, %s: %s, at most %s", word, v.Size, v.Figure, figure(v.Value), figure(v.Most))
	if v.First > 0 {
		text += fmt.Sprintf(" (%.2f times the first's)", v.Value/v.First)
	}
	return text
}

// figure has as many digits as say something.
func figure(value float64) string {
	if value >= 1000 {
		return fmt.Sprintf("%.0f", value)
	}
	return fmt.Sprintf("%.2f", value)
}
