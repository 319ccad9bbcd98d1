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
	clustersPerProject = 10 // so that listing a project has the same cost in every fleet
	maxFleet           = 100_000

	smallClusterTargets = 3 // of each cluster of one project: two shards and a config server
	maxProjectClusters  = 10_000

	fleetClustersAtATime = 4
	fleetConcurrency     = 4 // of each cluster
	fleetInFlight        = fleetClustersAtATime * fleetConcurrency
	fleetListing         = 4 // projects that a fleet lists in parallel while it rotates
)

// Limits of each size, relative to the smallest size of its shape or absolute.
const (
	maxCostGrowth   = 1.25
	maxMemoryGrowth = 1.5
	maxEvents       = 5_000
	maxPayload      = 256 << 10
)

// growthRow has the costs of one size.
type growthRow struct {
	Name     string `json:"name"`
	Shape    shape  `json:"shape"`
	Clusters int    `json:"clusters"`
	Targets  int    `json:"targets"`
	Runs     int    `json:"workflowRuns"`

	MillisecondsPerTarget float64 `json:"millisecondsPerTarget"`
	EventsPerTarget       float64 `json:"eventsPerTarget"`
	ActionsPerTarget      float64 `json:"actionsPerTarget"`
	BytesPerTarget        float64 `json:"bytesPerTarget"`
	// ListRequestsPerCluster are what it costs to find a cluster's targets.
	ListRequestsPerCluster float64 `json:"listRequestsPerCluster"`

	BiggestHistory    int64  `json:"biggestHistoryEvents"`
	BiggestHistoryRun string `json:"biggestHistoryWorkflow"`
	BiggestPayload    int64  `json:"biggestPayloadBytes"`
	// Scanned is the number of histories, the largest ones, that were searched
	// for it.
	Scanned    int           `json:"historiesScanned"`
	PeakMemory uint64        `json:"peakMemory"`
	Requests   requestCounts `json:"requests"`
	Actions    actions       `json:"actions"`
}

// growthReport is the report of all sizes.
type growthReport struct {
	Machine        machine     `json:"machine"`
	LatencySeconds float64     `json:"latencySeconds"`
	InFlight       int         `json:"inFlight"`
	Sizes          []growthRow `json:"sizes"`
	Checks         []check     `json:"checks"`
}

// shape is what sizes that are compared have in common.
type shape string

const (
	shapeFleet   shape = "fleet"   // many projects of ten clusters with ten targets, or one big cluster
	shapeProject shape = "project" // one project of clusters with three targets
)

// workload is what one size of the growth measurement rotates.
type workload struct {
	name     string
	shape    shape
	clusters int
	populate func(*simulator.Server)
	// warmUp and rotate return when all targets are rotated.
	warmUp, rotate func(context.Context, *target) error
	// targets and workflows (that end; a workflow may continue as new) are
	// known when the Ops Manager is populated.
	targets   []string
	workflows int
	inFlight  int // maximum number of concurrent requests
}

// fleetWorkload runs RotateFleet for clusters of ten targets.
func fleetWorkload(targets int) *workload {
	clusters := targets / clusterTargets
	l := newFleetWorkload(fmt.Sprintf("fleet of %d targets", targets), shapeFleet, clusters)
	l.populate = func(om *simulator.Server) { l.targets = addFleet(om, targets) }
	return l
}

// projectWorkload runs RotateFleet for clusters of three targets in one project.
func projectWorkload(clusters int) *workload {
	l := newFleetWorkload(fmt.Sprintf("one project of %d clusters", clusters), shapeProject, clusters)
	l.populate = func(om *simulator.Server) { l.targets = addProject(om, clusters) }
	return l
}

func newFleetWorkload(name string, of shape, clusters int) *workload {
	return &workload{
		name: name, shape: of, clusters: clusters, workflows: 1 + clusters, inFlight: fleetInFlight + fleetListing,
		warmUp: func(ctx context.Context, s *target) error { return s.rotateFleet(ctx, warmUpFleet, 1) },
		rotate: func(ctx context.Context, s *target) error { return s.rotateFleet(ctx, measuredFleet, clusters) },
	}
}

// clusterWorkload runs RotateCluster for one cluster.
func clusterWorkload(targets int) *workload {
	var small, orders cluster
	l := &workload{name: fmt.Sprintf("one cluster of %d targets", targets), shape: shapeFleet, clusters: 1, workflows: 1, inFlight: min(fleetInFlight, targets)}
	l.populate = func(om *simulator.Server) {
		small = addCluster(om, project, "warmup", warmUpTargets)
		orders = addCluster(om, project, "orders", targets)
		l.targets = orders.targets
	}
	l.warmUp = func(ctx context.Context, s *target) error { return s.rotateCluster(ctx, small) }
	l.rotate = func(ctx context.Context, s *target) error { return s.rotateCluster(ctx, orders) }
	return l
}

func (s *target) rotateCluster(ctx context.Context, c cluster) error {
	started, err := s.start(ctx, c, min(fleetInFlight, len(c.targets)))
	if err != nil {
		return causeOf(ctx, err)
	}
	_, err = s.await(ctx, c, started)
	return err
}

// runGrowth measures the sizes sequentially, each with its own worker, and
// compares them with the first size of their shape. It returns an error if a cost exceeds its
// limit.
func (r *harness) runGrowth(ctx context.Context, s settings, stdout io.Writer) error {
	var loads []*workload
	for _, targets := range s.sizes {
		loads = append(loads, fleetWorkload(targets))
	}
	if s.shards > 0 {
		loads = append(loads, clusterWorkload(s.shards+1))
	}
	for _, clusters := range s.clusters {
		loads = append(loads, projectWorkload(clusters))
	}
	return r.reportGrowth(ctx, loads, s, stdout)
}

func (r *harness) reportGrowth(ctx context.Context, loads []*workload, s settings, stdout io.Writer) (err error) {
	report := growthReport{LatencySeconds: s.latency.Seconds(), InFlight: fleetInFlight}
	if report.Machine, err = r.machine(ctx); err != nil {
		return err
	}
	for _, l := range loads {
		row, err := r.measureSize(ctx, l, s.latency)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		report.Sizes = append(report.Sizes, row)
	}
	report.Checks = checksOf(report.Sizes)
	if s.output == outputJSON {
		err = writeJSON(stdout, report)
	} else {
		_, err = io.WriteString(stdout, report.text())
	}
	return errors.Join(err, failureOf(report.Checks))
}

// measureSize measures one size.
func (r *harness) measureSize(ctx context.Context, l *workload, latency time.Duration) (row growthRow, err error) {
	s, err := r.newTarget(ctx, latency, 1, 0, l.populate)
	if err != nil {
		return row, err
	}
	defer s.close()
	ctx, stop := s.whileWorkersRun(ctx)
	defer stop()
	if row, err = s.measureSize(ctx, l); err != nil {
		return row, s.withWorkerLogs(err)
	}
	stop()
	row.PeakMemory = stopAndMeasureMemory(s.workers)
	return row, nil
}

func (s *target) measureSize(ctx context.Context, l *workload) (row growthRow, err error) {
	s.harness.progressf("%s", l.name)
	if err := l.warmUp(ctx, s); err != nil {
		return row, fmt.Errorf("warming up: %w", err)
	}
	before, err := s.harness.readActions(ctx)
	if err != nil {
		return row, err
	}
	s.om.ResetLedger()
	startedAt := time.Now()
	if err := l.rotate(ctx, s); err != nil {
		return row, err
	}
	took := time.Since(startedAt)
	row = growthRow{Name: l.name, Shape: l.shape, Clusters: l.clusters, Targets: len(l.targets)}
	if row.Requests, err = countRequests(s.om.Ledger(), l.targets, l.inFlight); err != nil {
		return row, err
	}
	runs, err := s.runsSince(ctx, startedAt, l.workflows)
	if err != nil {
		return row, err
	}
	after, err := s.harness.readActions(ctx)
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
	row.ListRequestsPerCluster = float64(row.Requests.ListRequests) / float64(row.Clusters)
	row.BiggestHistory, row.BiggestHistoryRun = h.biggestHistory, h.biggestHistoryRun
}

// check says whether one figure of one size is within its limit.
type check struct {
	Size   string  `json:"size"`
	Figure string  `json:"figure"`
	Value  float64 `json:"value"`
	Limit  float64 `json:"limit"`
	// First is the figure of the smallest size, if the limit is relative to it.
	First  float64 `json:"first,omitempty"`
	Passed bool    `json:"passed"`
}

// checksOf compares the sizes with the first one of their shape. The absolute
// limits apply to the first one, too.
func checksOf(sizes []growthRow) (checks []check) {
	firsts := map[shape]growthRow{}
	for _, row := range sizes {
		if first, found := firsts[row.Shape]; found {
			checks = append(checks, row.comparedWith(first)...)
		} else {
			firsts[row.Shape] = row
		}
		checks = append(checks,
			bounded(row.Name, "largest history, events", float64(row.BiggestHistory), maxEvents),
			bounded(row.Name, "largest payload, bytes", float64(row.BiggestPayload), maxPayload))
	}
	return checks
}

func (row growthRow) comparedWith(first growthRow) []check {
	grown := func(figure string, value, of, by float64) check {
		v := bounded(row.Name, figure, value, of*by)
		v.First = of
		return v
	}
	checks := []check{
		grown("ms per target", row.MillisecondsPerTarget, first.MillisecondsPerTarget, maxCostGrowth),
		grown("events per target", row.EventsPerTarget, first.EventsPerTarget, maxCostGrowth),
		grown("actions per target", row.ActionsPerTarget, first.ActionsPerTarget, maxCostGrowth),
		grown("bytes per target", row.BytesPerTarget, first.BytesPerTarget, maxCostGrowth),
		grown("peak memory of the worker, bytes", float64(row.PeakMemory), float64(first.PeakMemory), maxMemoryGrowth),
	}
	if row.Shape == shapeProject {
		checks = append(checks, grown("list requests per cluster", row.ListRequestsPerCluster, first.ListRequestsPerCluster, maxCostGrowth))
	}
	return checks
}

func bounded(size, figure string, value, most float64) check {
	return check{Size: size, Figure: figure, Value: value, Limit: most, Passed: value <= most}
}

func failureOf(checks []check) error {
	failed := 0
	for _, v := range checks {
		if !v.Passed {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d figures exceed their limits", failed, len(checks))
	}
	return nil
}

func (g growthReport) text() string {
	sizes := newTable("", "targets", "ms per target", "events per target", "actions per target", "bytes per target", "list requests per cluster",
		"largest history", "largest payload", "peak memory of the worker", "workflow runs")
	for _, row := range g.Sizes {
		sizes.AppendRow(table.Row{
			row.Name, row.Targets, fmt.Sprintf("%.2f", row.MillisecondsPerTarget), fmt.Sprintf("%.2f", row.EventsPerTarget),
			fmt.Sprintf("%.2f", row.ActionsPerTarget), fmt.Sprintf("%.0f", row.BytesPerTarget), fmt.Sprintf("%.3f", row.ListRequestsPerCluster), fmt.Sprintf("%d events", row.BiggestHistory),
			fmt.Sprintf("%.1f KiB", float64(row.BiggestPayload)/(1<<10)), megabytes(row.PeakMemory), row.Runs,
		})
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Growth of keyturn's costs: %s\n\n%s\n\n", g.Machine, sizes.Render())
	for _, v := range g.Checks {
		fmt.Fprintln(&b, v)
	}
	fmt.Fprintf(&b, `
Fleets: clusters of %d targets, %d clusters per project. One project: clusters of %d targets. %d clusters in parallel
with %d targets each; %.0f ms per request. The limits are %.2f times the cost of the smallest fleet or project and %.1f
times the memory of its worker. The largest payload was searched in the largest histories of each size, at most %d; events and bytes include all runs.
`, clusterTargets, clustersPerProject, smallClusterTargets, fleetClustersAtATime, fleetConcurrency, g.LatencySeconds*1000,
		maxCostGrowth, maxMemoryGrowth, maxScanned)
	return b.String()
}

func (v check) String() string {
	word := "PASS"
	if !v.Passed {
		word = "FAIL"
	}
	text := fmt.Sprintf("%s  %s, %s: %s, at most %s", word, v.Size, v.Figure, figure(v.Value), figure(v.Limit))
	if v.First > 0 {
		text += fmt.Sprintf(" (%.2f times the first)", v.Value/v.First)
	}
	return text
}

// figure formats a value with its significant digits.
func figure(value float64) string {
	if value >= 1000 {
		return fmt.Sprintf("%.0f", value)
	}
	return fmt.Sprintf("%.2f", value)
}
