package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/temporalserver"
)

func TestMain(m *testing.M) { temporalserver.Main(m) }

// tiny is a case that takes almost no time.
var tiny = benchCase{targets: 4, latency: 5 * time.Millisecond, inFlight: 2}

func newTestHarness(t *testing.T) *harness {
	t.Helper()
	require.Empty(t, missingForCurl(), "this test requires these programs")
	r, err := newHarness(t.Context(), nil, io.Discard)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, r.stop()) })
	return r
}

// Two harnesses for all measurements: one takes seconds to start, and a measurement
// waits most of its time.
func TestMeasurements(t *testing.T) {
	t.Parallel()
	r := newTestHarness(t)
	t.Run("figures are consistent", func(t *testing.T) { testFiguresAreConsistent(t, r) })
	t.Run("a second PUT is an error", func(t *testing.T) { testSecondPutIsAnError(t, r) })
	t.Run("more workers", func(t *testing.T) { testMoreWorkers(t, r) })
	t.Run("a deployment", func(t *testing.T) { testDeployment(t, r) })
	t.Run("a killed worker ends the measurement", func(t *testing.T) { testKilledWorkerIsAnError(t, r) })
}

func TestMeasurementsOfGrowth(t *testing.T) {
	t.Parallel()
	r := newTestHarness(t)
	t.Run("of clusters", func(t *testing.T) { testClusterGrowth(t, r) })
	t.Run("of a fleet", func(t *testing.T) { testFleetGrowth(t, r) })
	t.Run("of a project", func(t *testing.T) { testProjectGrowth(t, r) })
}

func testDeployment(t *testing.T, r *harness) {
	row, err := r.measureDeployment(t.Context(), time.Millisecond, 1, 1)
	require.NoError(t, err)
	assert.Equal(t, 1, row.puts)
	assert.Greater(t, row.requests, row.puts)
	assert.EqualValues(t, 1, row.runs)
	assert.Positive(t, row.events)
	assert.Positive(t, row.bytes)
}

func testFiguresAreConsistent(t *testing.T, r *harness) {
	picture := filepath.Join(t.TempDir(), "benchmark.svg")
	var out bytes.Buffer
	s := settings{cases: []benchCase{tiny}, repeat: 2, output: outputJSON, svg: picture}
	require.NoError(t, r.runCases(t.Context(), s, &out))
	var report comparisons
	require.NoError(t, json.Unmarshal(out.Bytes(), &report))
	require.Len(t, report.Cases, 1)
	one := report.Cases[0]
	assert.InDelta(t, 0.03, one.IdealSeconds, 1e-9)

	requireMethod := func(w *method, runs, inFlight int) {
		t.Helper()
		require.NotNil(t, w)
		assert.Equal(t, 3*tiny.targets, w.Requests.KeyRequests)
		assert.LessOrEqual(t, w.Requests.PeakInFlight, inFlight)
		assert.Positive(t, w.Requests.PeakInFlight)
		assert.Equal(t, runs, w.Runs)
		assert.InDelta(t, one.IdealSeconds/w.Seconds.Median, w.Share.Median, 1e-9)
		assert.LessOrEqual(t, w.Share.Max, 1.0, "nothing is faster than the ideal")
		assert.LessOrEqual(t, w.Seconds.Min, w.Seconds.Median)
		assert.LessOrEqual(t, w.Seconds.Median, w.Seconds.Max)
	}
	requireMethod(&one.Keyturn, 2, 2)
	requireMethod(&one.KeyturnInStep, 2, 2)
	requireMethod(one.CurlParallel, 2, 2)
	requireMethod(one.CurlLoop, 1, 1)
	assert.Equal(t, 3*tiny.targets, one.CurlLoop.Requests.Challenges, "each curl process needs its own challenge")
	assert.Less(t, one.Keyturn.Requests.Challenges, 3*tiny.targets)
	assert.InDelta(t, 3, one.CurlLoop.RequestsPerTarget, 1e-9)
	assert.Greater(t, one.Keyturn.RequestsPerTarget, 3.0, "includes listing")

	assert.InDelta(t, 1, one.Costs.Actions["StartWorkflowExecution"], 1e-9)
	assert.Greater(t, one.Costs.Actions["ScheduleActivityTask"], float64(tiny.targets), "at least one activity per target")
	assert.InDelta(t, one.Costs.Actions.sum()/4, one.Costs.ActionsPerTarget, 1e-9)
	assert.Greater(t, one.Costs.EventsPerTarget, one.Costs.ActionsPerTarget)
	assert.Greater(t, one.Costs.BytesPerTarget, 100.0)
	assert.Greater(t, one.Costs.PeakMemory, uint64(5<<20))

	p := one.Phases
	whole := p.Starting + p.Listing + p.Reading + p.Canary + p.Rotating + p.Ending
	assert.Positive(t, p.Canary)
	assert.Positive(t, p.Rotating)
	assert.LessOrEqual(t, whole, one.Keyturn.Seconds.Max)

	svg, err := os.ReadFile(picture)
	require.NoError(t, err)
	assert.Contains(t, string(svg), "4 targets, 5 ms per request, 2 in flight")
}

func testSecondPutIsAnError(t *testing.T, r *harness) {
	var orders cluster
	s, err := r.newTarget(t.Context(), 0, 0, 0, func(om *simulator.Server) { orders = addCluster(om, project, "orders", 3) })
	require.NoError(t, err)
	defer s.close()
	_, _, err = s.curlLoop(t.Context(), orders)
	require.NoError(t, err)
	twice := orders
	twice.targets = append(twice.targets[:3:3], twice.targets[0])
	_, _, err = s.curlLoop(t.Context(), twice)
	require.ErrorContains(t, err, "had 2 PUTs, of which 2 were applied")
	s.om.Inject(simulator.PutServerError(orders.targets[1], simulator.ApplyNo))
	_, _, err = s.curlParallel(t.Context(), orders, 2)
	require.ErrorContains(t, err, "500", "the error of curl is shown")
}

func testClusterGrowth(t *testing.T, r *harness) {
	var out bytes.Buffer
	s := settings{latency: 2 * time.Millisecond, output: outputJSON}
	err := r.reportGrowth(t.Context(), []*workload{clusterWorkload(4), clusterWorkload(8)}, s, &out)
	var report growthReport
	require.NoError(t, json.Unmarshal(out.Bytes(), &report), "%v", err)
	require.Len(t, report.Sizes, 2)
	for i, targets := range []int{4, 8} {
		row := report.Sizes[i]
		assert.Equal(t, targets, row.Targets)
		assert.Equal(t, 1, row.Runs)
		assert.Equal(t, 1, row.Scanned)
		assert.Equal(t, 3*targets, row.Requests.KeyRequests)
		assert.InDelta(t, float64(row.BiggestHistory), row.EventsPerTarget*float64(targets), 1e-6, "there is only one history")
		assert.Greater(t, row.BiggestPayload, int64(200*targets), "the result has all records")
		assert.Less(t, float64(row.BiggestPayload), row.BytesPerTarget*float64(targets))
		assert.InDelta(t, 1, row.Actions["StartWorkflowExecution"], 1e-9)
		assert.Positive(t, row.PeakMemory)
		assert.Positive(t, row.MillisecondsPerTarget)
	}
	assert.Len(t, report.Checks, 2+7)
	assert.Equal(t, err != nil, failureOf(report.Checks) != nil)
}

func testFleetGrowth(t *testing.T, r *harness) {
	row, err := r.measureSize(t.Context(), fleetWorkload(2*clusterTargets), time.Millisecond)
	require.NoError(t, err)
	assert.Equal(t, 20, row.Targets)
	assert.Equal(t, 60, row.Requests.KeyRequests)
	assert.Positive(t, row.Requests.OtherRequests)
	assert.GreaterOrEqual(t, row.Runs, 3, "the fleet and its clusters")
	assert.Equal(t, row.Runs, row.Scanned)
	assert.Less(t, float64(row.BiggestHistory), 20*row.EventsPerTarget, "there is more than one history")
	assert.GreaterOrEqual(t, row.Actions["StartChildWorkflowExecution"], 2.0)
}

func testProjectGrowth(t *testing.T, r *harness) {
	row, err := r.measureSize(t.Context(), projectWorkload(4), time.Millisecond)
	require.NoError(t, err)
	assert.Equal(t, 4, row.Clusters)
	assert.Equal(t, 12, row.Targets)
	assert.Equal(t, 36, row.Requests.KeyRequests)
	assert.InDelta(t, 4*row.ListRequestsPerCluster, float64(row.Requests.ListRequests), 1e-9)
	assert.GreaterOrEqual(t, row.ListRequestsPerCluster, 1.25, "two projects for the fleet, and one for each cluster")
}

func testMoreWorkers(t *testing.T, r *harness) {
	var small, big []cluster
	s, err := r.newTarget(t.Context(), time.Millisecond, 2, 0, func(om *simulator.Server) {
		small = append(small, addCluster(om, project, "small", 1))
		for i := range 3 {
			big = append(big, addCluster(om, project, fmt.Sprintf("big%d", i), 3))
		}
	})
	require.NoError(t, err)
	defer s.close()
	require.Len(t, s.workers, 2)
	row, err := s.share(t.Context(), small, big, 2)
	require.NoError(t, err)
	assert.Positive(t, row.TargetsPerSecond.Min)
	assert.Positive(t, row.PeakInFlight)
	assert.Positive(t, row.busy())
	assert.Positive(t, stopAndMeasureMemory(s.workers))
}

func testKilledWorkerIsAnError(t *testing.T, r *harness) {
	var orders cluster
	s, err := r.newTarget(t.Context(), 20*time.Second, 1, 0, func(om *simulator.Server) { orders = addCluster(om, project, "orders", 2) })
	require.NoError(t, err)
	defer s.close()
	go func() {
		_ = s.om.Await(t.Context(), func(l simulator.Ledger) bool { return len(l.Requests) > 0 })
		s.workers[0].Kill()
	}()
	_, err = s.rotate(t.Context(), orders, 1, 1)
	require.ErrorContains(t, err, "the worker exited")
	assert.ErrorContains(t, s.withWorkerLogs(err), "last log lines of worker 1")
	_ = r.temporal.TerminateWorkflow(t.Context(), orders.workflowID(), "", "test ended")
}

func TestCasesAreParsed(t *testing.T) {
	cases, err := parseCases("64:200ms:8, 1:1s:1")
	require.NoError(t, err)
	assert.Equal(t, []benchCase{{64, 200 * time.Millisecond, 8}, {1, time.Second, 1}}, cases)
	assert.Equal(t, 4800*time.Millisecond, cases[0].ideal())
	assert.Equal(t, 3*time.Second, cases[1].ideal())
	for _, c := range append(must(parseCases(defaultCases)), must(parseCases(quickCases))...) {
		assert.Equal(t, []benchCase{c}, must(parseCases(c.String())))
	}
}

func must(cases []benchCase, err error) []benchCase {
	if err != nil {
		panic(err)
	}
	return cases
}

func TestInvalidFlagsFailWithOneLine(t *testing.T) {
	for arguments, want := range map[string]string{
		"-cases=64:200ms":            `-cases: case "64:200ms": must be TARGETS:LATENCY:IN-FLIGHT, for example 64:200ms:8`,
		"-cases=0:200ms:1":           `-cases: case "0:200ms:1": targets must be 1 to 5000`,
		"-cases=4:200:1":             `-cases: case "4:200:1": latency must be 1ms to 1m0s`,
		"-cases=4:1ms:5":             `-cases: case "4:1ms:5": in flight must be 1 to 4`,
		"-cases=100:1ms:65":          `-cases: case "100:1ms:65": in flight must be 1 to 64`,
		"-repeat=0":                  "-repeat: must be 1 or more",
		"-o=xml":                     "-o: must be text or json",
		"-workers=0":                 `-workers: "0" must be 1 to 16`,
		"-growth -sizes=5":           `-sizes: "5" must be 10 to 100000`,
		"-growth -workers=1":         "set only one of -growth, -workers and -deployment",
		"-growth -svg=x":             "-svg: not available with -growth, -workers and -deployment",
		"-deployment=65":             `-deployment: "65" must be 1 to 64`,
		"-deployment=1 -growth":      "set only one of -growth, -workers and -deployment",
		"-deployment=1 -o=json":      "-deployment: only text",
		"-latency=0s":                "-latency: must be 1ms to 1m0s",
		"-shards=-1":                 "-shards: must be 0 to 5000",
		"nonsense":                   `unknown argument "nonsense"`,
		"-nonsense":                  "flag provided but not defined: -nonsense",
		"-growth -sizes=100,10,1000": "-sizes: must be in ascending order: the first one is the baseline",
		"-growth -clusters=0":        `-clusters: "0" must be 1 to 10000`,
		"-growth -clusters=10,9":     "-clusters: must be in ascending order: the first one is the baseline",
		"-growth -sizes=15":          "-sizes: must be multiples of 10, the targets of each cluster",
	} {
		var stdout, stderr bytes.Buffer
		code := execute(t.Context(), strings.Fields(arguments), &stdout, &stderr)
		assert.Equal(t, exitUsage, code, arguments)
		assert.Equal(t, "bench: "+want+"\n", stderr.String(), arguments)
		assert.Empty(t, stdout.String())
	}
}

func TestQuickPicksTheCases(t *testing.T) {
	s, err := parse([]string{"-quick", "-server-args", "--log-level error"}, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, must(parseCases(quickCases)), s.cases)
	assert.Equal(t, []string{"--log-level", "error"}, s.serverArgs)
}

func TestSpreads(t *testing.T) {
	assert.Equal(t, spread{Median: 2, Min: 1, Max: 9}, spreadOf([]float64{9, 1, 2}))
	assert.Equal(t, spread{Median: 1.5, Min: 1, Max: 2}, spreadOf([]float64{2, 1}))
	assert.Equal(t, spread{Median: 0.5, Min: 0.25, Max: 1}, shareOfIdeal(time.Second, spread{Median: 2, Min: 1, Max: 4}))
	assert.Equal(t, 2, middleOf([]float64{9, 1, 2}))
	assert.Equal(t, 1, middleOf([]float64{2, 1}), "the lower one of two")
	assert.Equal(t, 0, middleOf([]float64{7}))
}

func TestRequestCountsFindViolations(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	request := func(method, id string, from, to int) simulator.Request {
		return simulator.Request{Method: method, ClusterID: id, Kind: simulator.KindKey, Authenticated: true, Start: at(from), End: at(to)}
	}
	rotation := func(id string) simulator.Rotation { return simulator.Rotation{ClusterID: id} }
	fine := simulator.Ledger{
		Requests: []simulator.Request{
			{Kind: simulator.KindClusters, Method: "GET", Authenticated: true, Start: at(0), End: at(1)},
			{Kind: simulator.KindKey, Method: "PUT", ClusterID: "a", Challenge: true, Start: at(1), End: at(2)},
			request("GET", "a", 2, 4), request("PUT", "a", 4, 8), request("PUT", "b", 5, 7),
		},
		Rotations: []simulator.Rotation{rotation("a"), rotation("b")},
	}
	counted, err := countRequests(fine, []string{"a", "b"}, 2)
	require.NoError(t, err)
	assert.Equal(t, requestCounts{KeyRequests: 3, OtherRequests: 1, ListRequests: 1, Challenges: 1, PeakInFlight: 2}, counted)

	_, err = countRequests(fine, []string{"a", "b"}, 1)
	require.ErrorContains(t, err, "2 requests were in flight")
	_, err = countRequests(fine, []string{"a"}, 2)
	require.ErrorContains(t, err, "2 clusters had a PUT")
	_, err = countRequests(fine, []string{"a", "b", "c"}, 2)
	require.ErrorContains(t, err, "target c had 0 PUTs")
	twice := fine
	twice.Requests = append(twice.Requests[:5:5], request("PUT", "b", 9, 10))
	_, err = countRequests(twice, []string{"a", "b"}, 2)
	require.ErrorContains(t, err, "target b had 2 PUTs, of which 1 were applied")
	refused := fine
	refused.Rotations = refused.Rotations[:1]
	_, err = countRequests(refused, []string{"a", "b"}, 2)
	require.ErrorContains(t, err, "target b had 1 PUTs, of which 0 were applied")
}

func TestActionsAreCountedFromServerMetrics(t *testing.T) {
	before := actions{"command_ScheduleActivityTask": 10, "grpc_StartWorkflowExecution": 2}
	after := actions{"command_ScheduleActivityTask": 30, "grpc_StartWorkflowExecution": 4, "grpc_QueryWorkflow": 2, "command_StartTimer": 0}
	counted := after.since(before, 2)
	assert.Equal(t, actions{"ScheduleActivityTask": 10, "StartWorkflowExecution": 1, "QueryWorkflow": 1}, counted)
	assert.InDelta(t, 12, counted.sum(), 1e-9)
}

func TestGrowthChecks(t *testing.T) {
	first := growthRow{Name: "small", MillisecondsPerTarget: 10, EventsPerTarget: 8, ActionsPerTarget: 2, BytesPerTarget: 2000, PeakMemory: 100, BiggestHistory: 100, BiggestPayload: 1000}
	grown := growthRow{Name: "big", MillisecondsPerTarget: 12.5, EventsPerTarget: 10, ActionsPerTarget: 2.5, BytesPerTarget: 2500, PeakMemory: 150, BiggestHistory: 5000, BiggestPayload: 256 << 10}
	checks := checksOf([]growthRow{first, grown})
	assert.Len(t, checks, 9)
	require.NoError(t, failureOf(checks), "each figure is just within its limit")
	for figure, worsen := range map[string]func(*growthRow){
		"ms per target":                    func(r *growthRow) { r.MillisecondsPerTarget = 12.6 },
		"events per target":                func(r *growthRow) { r.EventsPerTarget = 10.1 },
		"actions per target":               func(r *growthRow) { r.ActionsPerTarget = 2.6 },
		"bytes per target":                 func(r *growthRow) { r.BytesPerTarget = 2501 },
		"peak memory of the worker, bytes": func(r *growthRow) { r.PeakMemory = 151 },
		"largest history, events":          func(r *growthRow) { r.BiggestHistory = 5001 },
		"largest payload, bytes":           func(r *growthRow) { r.BiggestPayload = 256<<10 + 1 },
	} {
		worse := grown
		worsen(&worse)
		checks := checksOf([]growthRow{first, worse})
		require.ErrorContains(t, failureOf(checks), "1 of 9", figure)
		for _, v := range checks {
			assert.Equal(t, v.Size != "big" || v.Figure != figure, v.Passed, v.String())
			assert.Equal(t, v.Passed, strings.HasPrefix(v.String(), "PASS"))
		}
	}
	first.Shape, first.ListRequestsPerCluster = shapeProject, 1
	grown.Shape, grown.ListRequestsPerCluster = shapeProject, 1.25
	fleet := growthRow{Name: "fleet", Shape: shapeFleet, MillisecondsPerTarget: 1}
	checks = checksOf([]growthRow{fleet, first, grown})
	assert.Len(t, checks, 12)
	require.NoError(t, failureOf(checks), "shapes are not compared with one another")
	grown.ListRequestsPerCluster = 1.26
	require.ErrorContains(t, failureOf(checksOf([]growthRow{fleet, first, grown})), "1 of 12")
	tooBig := first
	tooBig.BiggestHistory = 5001
	require.Error(t, failureOf(checksOf([]growthRow{tooBig})), "the absolute limits apply to the first size")
}

// sample is an example of a report.
func sample(withCurl bool) comparisons {
	c := benchCase{64, 200 * time.Millisecond, 8}
	one := comparison{
		Targets: 64, InFlight: 8, IdealSeconds: 4.8, measured: c,
		Keyturn:       methodOf(c, []float64{6, 6.4, 9.6}, requestCounts{KeyRequests: 192, OtherRequests: 2, PeakInFlight: 8}),
		KeyturnInStep: methodOf(c, []float64{8}, requestCounts{KeyRequests: 192, OtherRequests: 2, PeakInFlight: 8}),
	}
	report := comparisons{Repeat: 3, Cases: []comparison{one}, Machine: machine{TemporalServer: "1.29.1 <&>"}}
	if !withCurl {
		report.MissingForCurl = []string{"curl"}
		return report
	}
	parallel, loop := methodOf(c, []float64{4.9}, requestCounts{KeyRequests: 192}), methodOf(c, []float64{48}, requestCounts{KeyRequests: 192})
	report.Cases[0].CurlParallel, report.Cases[0].CurlLoop = &parallel, &loop
	return report
}

func TestSVGIsWellFormedAndToScale(t *testing.T) {
	for _, withCurl := range []bool{true, false} {
		widths := barWidths(t, sample(withCurl).picture())
		assert.Equal(t, []string{"420"}, widths["keyturn"], "a share of 0.75 of 560 pixels")
		assert.Equal(t, []string{"336"}, widths["instep"])
		if withCurl {
			assert.Equal(t, []string{"549"}, widths["parallel"])
			assert.Equal(t, []string{"56"}, widths["loop"])
		} else {
			assert.Empty(t, widths["parallel"])
			assert.Empty(t, widths["loop"])
		}
	}
}

// barWidths returns the widths of the bars, without the boxes of the legend.
func barWidths(t *testing.T, picture string) map[string][]string {
	t.Helper()
	widths := map[string][]string{}
	decoder := xml.NewDecoder(strings.NewReader(picture))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return widths
		}
		require.NoError(t, err)
		element, isElement := token.(xml.StartElement)
		if !isElement || element.Name.Local != "rect" {
			continue
		}
		attributes := map[string]string{}
		for _, attribute := range element.Attr {
			attributes[attribute.Name.Local] = attribute.Value
		}
		if attributes["height"] == fmt.Sprint(barHeight) {
			widths[attributes["class"]] = append(widths[attributes["class"]], attributes["width"])
		}
	}
}

func TestTextReport(t *testing.T) {
	text := sample(true).text(true)
	assert.Contains(t, text, "0.75 (0.50-0.80)")
	assert.Contains(t, text, "6.40 s")
	assert.Less(t, strings.Index(text, "Share of the ideal"), strings.Index(text, "Costs in Temporal"))
	assert.Contains(t, text, "8 of 8")
	without := sample(false).text(false)
	assert.Contains(t, without, "curl was not measured; not installed: curl.")
	assert.Regexp(t, `0\.75 \(0\.50-0\.80\) +0\.60 +- +- +4\.80 s +6\.40 s +8\.00 s +- +-`, without)
}

func TestMissingProgramsAreNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	assert.Equal(t, []string{"curl", "sh", "xargs"}, missingForCurl())
}

func TestMemoryOfEndedProcesses(t *testing.T) {
	r := &harness{}
	assert.Equal(t, uint64(0), peakMemory(-1), "no such process")
	assert.Nil(t, sumOfCPU(-1))
	assert.NotNil(t, cpuOfSelf())
	assert.NoError(t, r.stop())
	assert.Nil(t, cores(nil, cpuOfSelf(), time.Second))
}

func TestInterruptionSetsExitCode(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("ended"))
	var stdout, stderr bytes.Buffer
	assert.Equal(t, exitFailed, execute(ctx, nil, &stdout, &stderr))
	assert.Equal(t, "bench: ended\n", stderr.String())
}
