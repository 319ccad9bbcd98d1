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
	"keyturn/testsuite/temporalserver"
)

func TestMain(m *testing.M) { temporalserver.Main(m) }

// tiny is a case that takes no time.
var tiny = benchCase{targets: 4, latency: 5 * time.Millisecond, inFlight: 2}

func newTestRig(t *testing.T) *rig {
	t.Helper()
	if missing := missingForCurl(); len(missing) > 0 {
		t.Fatalf("this test needs %v", missing)
	}
	r, err := newRig(t.Context(), nil, io.Discard)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, r.stop()) })
	return r
}

// One rig for all that is measured: it takes seconds to start.
func TestMeasurements(t *testing.T) {
	r := newTestRig(t)
	t.Run("figures agree with the ledger and with each other", func(t *testing.T) { figuresAgree(t, r) })
	t.Run("a second PUT is an error", func(t *testing.T) { secondPutIsAnError(t, r) })
	t.Run("growth of clusters", func(t *testing.T) { growthOfClusters(t, r) })
	t.Run("growth of a fleet", func(t *testing.T) { growthOfAFleet(t, r) })
	t.Run("more workers", func(t *testing.T) { moreWorkers(t, r) })
	t.Run("a worker that dies ends the measurement", func(t *testing.T) { deadWorkerIsAnError(t, r) })
}

func figuresAgree(t *testing.T, r *rig) {
	picture := filepath.Join(t.TempDir(), "benchmark.svg")
	var out bytes.Buffer
	s := settings{cases: []benchCase{tiny}, repeat: 2, output: outputJSON, svg: picture}
	require.NoError(t, r.runCases(t.Context(), s, &out))
	var report comparisons
	require.NoError(t, json.Unmarshal(out.Bytes(), &report))
	require.Len(t, report.Cases, 1)
	one := report.Cases[0]
	assert.InDelta(t, 0.03, one.IdealSeconds, 1e-9)

	requireWay := func(w *way, runs, inFlight int) {
		t.Helper()
		require.NotNil(t, w)
		assert.Equal(t, 3*tiny.targets, w.Account.KeyRequests)
		assert.LessOrEqual(t, w.Account.PeakInFlight, inFlight)
		assert.Positive(t, w.Account.PeakInFlight)
		assert.Equal(t, runs, w.Runs)
		assert.InDelta(t, one.IdealSeconds/w.Seconds.Median, w.Share.Median, 1e-9)
		assert.LessOrEqual(t, w.Share.Max, 1.0, "nothing is faster than the ideal")
		assert.LessOrEqual(t, w.Seconds.Min, w.Seconds.Median)
		assert.LessOrEqual(t, w.Seconds.Median, w.Seconds.Max)
	}
	requireWay(&one.Keyturn, 2, 2)
	requireWay(&one.KeyturnInStep, 2, 2)
	requireWay(one.CurlParallel, 2, 2)
	requireWay(one.CurlLoop, 1, 1)
	assert.Equal(t, 3*tiny.targets, one.CurlLoop.Account.Challenges, "each curl pays its own")
	assert.Less(t, one.Keyturn.Account.Challenges, 3*tiny.targets)
	assert.InDelta(t, 3, one.CurlLoop.RequestsPerTarget, 1e-9)
	assert.Greater(t, one.Keyturn.RequestsPerTarget, 3.0, "it has to list")

	assert.InDelta(t, 1, one.Costs.Actions["StartWorkflowExecution"], 1e-9)
	assert.Greater(t, one.Costs.Actions["ScheduleActivityTask"], float64(tiny.targets), "a target is an activity at least")
	assert.InDelta(t, one.Costs.Actions.sum()/4, one.Costs.ActionsPerTarget, 1e-9)
	assert.Greater(t, one.Costs.EventsPerTarget, one.Costs.ActionsPerTarget)
	assert.Greater(t, one.Costs.BytesPerTarget, 100.0)
	assert.Greater(t, one.Costs.PeakMemory, uint64(5<<20))

	p := one.Phases
	whole := p.Starting + p.Listing + p.Reading + p.Canary + p.Rotating + p.Ending
	assert.Positive(t, p.Canary)
	assert.Positive(t, p.Rotating)
	assert.LessOrEqual(t, whole, one.Keyturn.Seconds.Max)

	drawn, err := os.ReadFile(picture)
	require.NoError(t, err)
	assert.Contains(t, string(drawn), "4 targets, 5 ms a request, 2 in flight")
}

func secondPutIsAnError(t *testing.T, r *rig) {
	var orders cluster
	s, err := r.newSite(t.Context(), 0, 0, 0, func(om *simulator.Server) { orders = addCluster(om, project, "orders", 3) })
	require.NoError(t, err)
	defer s.close()
	_, _, err = s.curlLoop(t.Context(), orders)
	require.NoError(t, err)
	twice := orders
	twice.targets = append(twice.targets[:3:3], twice.targets[0])
	_, _, err = s.curlLoop(t.Context(), twice)
	require.ErrorContains(t, err, "had 2 PUTs, of which 2 took effect")
	s.om.Inject(simulator.PutServerError(orders.targets[1], simulator.ApplyNo))
	_, _, err = s.curlParallel(t.Context(), orders, 2)
	require.ErrorContains(t, err, "500", "curl's own complaint is shown")
}

func growthOfClusters(t *testing.T, r *rig) {
	var out bytes.Buffer
	s := settings{latency: 2 * time.Millisecond, output: outputJSON}
	err := r.reportGrowth(t.Context(), []*load{clusterLoad(4), clusterLoad(8)}, s, &out)
	var report growthReport
	require.NoError(t, json.Unmarshal(out.Bytes(), &report), "%v", err)
	require.Len(t, report.Sizes, 2)
	for i, targets := range []int{4, 8} {
		row := report.Sizes[i]
		assert.Equal(t, targets, row.Targets)
		assert.Equal(t, 1, row.Runs)
		assert.Equal(t, 1, row.Scanned)
		assert.Equal(t, 3*targets, row.Account.KeyRequests)
		assert.InDelta(t, float64(row.BiggestHistory), row.EventsPerTarget*float64(targets), 1e-6, "there is one history")
		assert.Greater(t, row.BiggestPayload, int64(200*targets), "the result has all records")
		assert.Less(t, float64(row.BiggestPayload), row.BytesPerTarget*float64(targets))
		assert.InDelta(t, 1, row.Actions["StartWorkflowExecution"], 1e-9)
		assert.Positive(t, row.PeakMemory)
		assert.Positive(t, row.MillisecondsPerTarget)
	}
	assert.Len(t, report.Verdicts, 2+7)
	assert.Equal(t, err != nil, failureOf(report.Verdicts) != nil)
}

func growthOfAFleet(t *testing.T, r *rig) {
	row, err := r.grow(t.Context(), fleetLoad(2*clusterTargets), time.Millisecond)
	require.NoError(t, err)
	assert.Equal(t, 20, row.Targets)
	assert.Equal(t, 60, row.Account.KeyRequests)
	assert.Positive(t, row.Account.OtherRequests)
	assert.GreaterOrEqual(t, row.Runs, 3, "the fleet and its clusters")
	assert.Equal(t, row.Runs, row.Scanned)
	assert.Less(t, float64(row.BiggestHistory), 20*row.EventsPerTarget, "there is more than one history")
	assert.GreaterOrEqual(t, row.Actions["StartChildWorkflowExecution"], 2.0)
}

func moreWorkers(t *testing.T, r *rig) {
	var small, big []cluster
	s, err := r.newSite(t.Context(), time.Millisecond, 2, 0, func(om *simulator.Server) {
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
	assert.Positive(t, endAndWeigh(s.workers))
}

func deadWorkerIsAnError(t *testing.T, r *rig) {
	var orders cluster
	s, err := r.newSite(t.Context(), 20*time.Second, 1, 0, func(om *simulator.Server) { orders = addCluster(om, project, "orders", 2) })
	require.NoError(t, err)
	defer s.close()
	go func() {
		_ = s.om.Await(t.Context(), func(l simulator.Ledger) bool { return len(l.Requests) > 0 })
		s.workers[0].Kill()
	}()
	_, err = s.rotate(t.Context(), orders, 1, 1)
	require.ErrorContains(t, err, "the worker has ended")
	assert.ErrorContains(t, s.explain(err), "worker 1 said last")
	_ = r.temporal.TerminateWorkflow(t.Context(), orders.workflowID(), "", "the test has ended")
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

func TestWrongFlagsAreToldInOneLine(t *testing.T) {
	for arguments, want := range map[string]string{
		"-cases=64:200ms":            `-cases: case "64:200ms": must be TARGETS:LATENCY:IN-FLIGHT, as in 64:200ms:8`,
		"-cases=0:200ms:1":           `-cases: case "0:200ms:1": targets must be 1 to 5000`,
		"-cases=4:200:1":             `-cases: case "4:200:1": latency must be 1ms to 1m0s`,
		"-cases=4:1ms:5":             `-cases: case "4:1ms:5": in flight must be 1 to 4`,
		"-cases=100:1ms:65":          `-cases: case "100:1ms:65": in flight must be 1 to 64`,
		"-repeat=0":                  "-repeat: must be 1 or more",
		"-o=xml":                     "-o: must be text or json",
		"-workers=0":                 `-workers: "0" must be 1 to 16`,
		"-growth -sizes=5":           `-sizes: "5" must be 10 to 100000`,
		"-growth -workers=1":         "-growth and -workers are two different measurements",
		"-growth -svg=x":             "-svg: there is a picture of the cases only",
		"-latency=0s":                "-latency: must be 1ms to 1m0s",
		"-shards=0":                  "-shards: must be 1 to 5000",
		"nonsense":                   `unknown argument "nonsense"`,
		"-nonsense":                  "flag provided but not defined: -nonsense",
		"-growth -sizes=100,10,1000": "-sizes: must grow: the others are compared with the first",
		"-growth -sizes=15":          "-sizes: must be tens: clusters have 10 targets",
	} {
		var stdout, stderr bytes.Buffer
		code := execute(t.Context(), strings.Fields(arguments), &stdout, &stderr)
		assert.Equal(t, exitWrongUse, code, arguments)
		assert.Equal(t, "bench: "+want+"\n", stderr.String(), arguments)
		assert.Empty(t, stdout.String())
	}
}

func TestQuickPicksTheCases(t *testing.T) {
	s, err := parse([]string{"-quick", "-server-args", "--log-level error"}, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, must(parseCases(quickCases)), s.cases)
	assert.Equal(t, []string{"--log-level", "error"}, s.toServer)
}

func TestSpreads(t *testing.T) {
	assert.Equal(t, spread{Median: 2, Min: 1, Max: 9}, spreadOf([]float64{9, 1, 2}))
	assert.Equal(t, spread{Median: 1.5, Min: 1, Max: 2}, spreadOf([]float64{2, 1}))
	assert.Equal(t, spread{Median: 0.5, Min: 0.25, Max: 1}, shareOfIdeal(time.Second, spread{Median: 2, Min: 1, Max: 4}))
	assert.Equal(t, 2, middleOf([]float64{9, 1, 2}))
	assert.Equal(t, 1, middleOf([]float64{2, 1}), "the lower one of two")
	assert.Equal(t, 0, middleOf([]float64{7}))
}

func TestAccountFindsWhatBreaksTheRules(t *testing.T) {
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
	counted, err := accountOf(fine, []string{"a", "b"}, 2)
	require.NoError(t, err)
	assert.Equal(t, account{KeyRequests: 3, OtherRequests: 1, Challenges: 1, PeakInFlight: 2}, counted)

	_, err = accountOf(fine, []string{"a", "b"}, 1)
	require.ErrorContains(t, err, "2 requests were in flight")
	_, err = accountOf(fine, []string{"a"}, 2)
	require.ErrorContains(t, err, "2 entities had a PUT")
	_, err = accountOf(fine, []string{"a", "b", "c"}, 2)
	require.ErrorContains(t, err, "target c had 0 PUTs")
	twice := fine
	twice.Requests = append(twice.Requests[:5:5], request("PUT", "b", 9, 10))
	_, err = accountOf(twice, []string{"a", "b"}, 2)
	require.ErrorContains(t, err, "target b had 2 PUTs, of which 1 took effect")
	refused := fine
	refused.Rotations = refused.Rotations[:1]
	_, err = accountOf(refused, []string{"a", "b"}, 2)
	require.ErrorContains(t, err, "target b had 1 PUTs, of which 0 took effect")
}

func TestActionsAreCountedFromTheServersFigures(t *testing.T) {
	before := actions{"command_ScheduleActivityTask": 10, "grpc_StartWorkflowExecution": 2}
	after := actions{"command_ScheduleActivityTask": 30, "grpc_StartWorkflowExecution": 4, "grpc_QueryWorkflow": 2, "command_StartTimer": 0}
	counted := after.since(before, 2)
	assert.Equal(t, actions{"ScheduleActivityTask": 10, "StartWorkflowExecution": 1, "QueryWorkflow": 1}, counted)
	assert.InDelta(t, 12, counted.sum(), 1e-9)
}

func TestVerdictsOfGrowth(t *testing.T) {
	first := growthRow{Name: "small", MillisecondsPerTarget: 10, EventsPerTarget: 8, ActionsPerTarget: 2, BytesPerTarget: 2000, PeakMemory: 100, BiggestHistory: 100, BiggestPayload: 1000}
	grown := growthRow{Name: "big", MillisecondsPerTarget: 12.5, EventsPerTarget: 10, ActionsPerTarget: 2.5, BytesPerTarget: 2500, PeakMemory: 150, BiggestHistory: 5000, BiggestPayload: 256 << 10}
	verdicts := verdictsOf([]growthRow{first, grown})
	assert.Len(t, verdicts, 9)
	require.NoError(t, failureOf(verdicts), "each is just within its bound")
	for figure, worsen := range map[string]func(*growthRow){
		"ms a target":                 func(r *growthRow) { r.MillisecondsPerTarget = 12.6 },
		"events a target":             func(r *growthRow) { r.EventsPerTarget = 10.1 },
		"actions a target":            func(r *growthRow) { r.ActionsPerTarget = 2.6 },
		"bytes a target":              func(r *growthRow) { r.BytesPerTarget = 2501 },
		"worker's peak memory, bytes": func(r *growthRow) { r.PeakMemory = 151 },
		"biggest history, events":     func(r *growthRow) { r.BiggestHistory = 5001 },
		"biggest payload, bytes":      func(r *growthRow) { r.BiggestPayload = 256<<10 + 1 },
	} {
		worse := grown
		worsen(&worse)
		verdicts := verdictsOf([]growthRow{first, worse})
		require.ErrorContains(t, failureOf(verdicts), "1 of 9", figure)
		for _, v := range verdicts {
			assert.Equal(t, v.Size != "big" || v.Figure != figure, v.Passed, v.String())
			assert.Equal(t, v.Passed, strings.HasPrefix(v.String(), "PASS"))
		}
	}
	tooBig := first
	tooBig.BiggestHistory = 5001
	require.Error(t, failureOf(verdictsOf([]growthRow{tooBig})), "the first has its own bounds")
}

// sample is a report as it could be.
func sample(withCurl bool) comparisons {
	c := benchCase{64, 200 * time.Millisecond, 8}
	one := comparison{
		Targets: 64, InFlight: 8, IdealSeconds: 4.8, measured: c,
		Keyturn:       wayOf(c, []float64{6, 6.4, 9.6}, account{KeyRequests: 192, OtherRequests: 2, PeakInFlight: 8}),
		KeyturnInStep: wayOf(c, []float64{8}, account{KeyRequests: 192, OtherRequests: 2, PeakInFlight: 8}),
	}
	report := comparisons{Repeat: 3, Cases: []comparison{one}, Machine: machine{TemporalServer: "1.29.1 <&>"}}
	if !withCurl {
		report.MissingForCurl = []string{"curl"}
		return report
	}
	parallel, loop := wayOf(c, []float64{4.9}, account{KeyRequests: 192}), wayOf(c, []float64{48}, account{KeyRequests: 192})
	report.Cases[0].CurlParallel, report.Cases[0].CurlLoop = &parallel, &loop
	return report
}

func TestPictureIsWellFormedAndTrueToScale(t *testing.T) {
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

// barWidths reads the bars of a picture; the legend's boxes are not among them.
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

func TestTextHasTheRatiosFirstAndSaysWhatIsMissing(t *testing.T) {
	text := sample(true).text(true)
	assert.Contains(t, text, "0.75 (0.50-0.80)")
	assert.Contains(t, text, "6.40 s")
	assert.Less(t, strings.Index(text, "Share of the ideal"), strings.Index(text, "What it costs"))
	assert.Contains(t, text, "8 of 8")
	without := sample(false).text(false)
	assert.Contains(t, without, "curl was not measured: this machine has no curl.")
	assert.Regexp(t, `0\.75 \(0\.50-0\.80\) +0\.60 +- +- +4\.80 s +6\.40 s +8\.00 s +- +-`, without)
}

func TestMissingProgramsAreNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	assert.Equal(t, []string{"curl", "sh", "xargs"}, missingForCurl())
}

func TestEndedProcessesAreWeighedToo(t *testing.T) {
	r := &rig{}
	assert.Equal(t, uint64(0), peakMemory(-1), "there is no such process")
	assert.Nil(t, sumOfCPU(-1))
	assert.NotNil(t, cpuOfSelf())
	assert.NoError(t, r.stop())
	assert.Nil(t, cores(nil, cpuOfSelf(), time.Second))
}

func TestInterruptionEndsItWithTheSignalsCode(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("ended"))
	var stdout, stderr bytes.Buffer
	assert.Equal(t, exitFailed, execute(ctx, nil, &stdout, &stderr))
	assert.Equal(t, "bench: ended\n", stderr.String())
}
