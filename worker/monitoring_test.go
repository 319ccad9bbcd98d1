package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/ledger"
	"keyturn/internal/setting"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/freeport"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

// freeAddress is one that nothing listens at now.
func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := freeport.Choose()
	require.NoError(t, err)
	return freeport.Address(port)
}

// monitoredEnvironment is a worker's on a stage, which listens.
func monitoredEnvironment(s fixture.Server) setting.Environment {
	env := processEnvironment(s.T, s.TemporalServer, s.TaskQueue)
	maps.Copy(env, setting.Environment{
		"OPS_MANAGER_URL": s.OM.URL, "OPS_MANAGER_PUBLIC_KEY": simulator.DefaultPublicKey,
		"OPS_MANAGER_PRIVATE_KEY": simulator.DefaultPrivateKey, listenVariable: freeAddress(s.T),
	})
	return env
}

// monitoredWorker is a worker in this process that looks more often than usual.
type monitoredWorker struct {
	address string
	log     syncBuffer
	stop    func()
}

// oftenLooking is a monitor that sees soon what has changed, and believes what it
// has seen for long: on a busy machine, too, a worker that is ready stays so.
var oftenLooking = monitorTimes{
	check: 50 * time.Millisecond, retry: 50 * time.Millisecond, maxAge: time.Hour,
	pollers: 200 * time.Millisecond, openRotations: 200 * time.Millisecond, timeout: waiting.Limit,
	reload: 50 * time.Millisecond, reconcile: 200 * time.Millisecond, now: time.Now,
}

// shortTimeouts is a monitor that soon gives up those who are silent. On a busy
// machine that may be anybody: a test waits for what it expects to be reported.
var shortTimeouts = monitorTimes{
	check: 50 * time.Millisecond, retry: 50 * time.Millisecond, maxAge: time.Second,
	pollers: 200 * time.Millisecond, openRotations: 200 * time.Millisecond, timeout: time.Second,
	reload: 50 * time.Millisecond, reconcile: 200 * time.Millisecond, now: time.Now,
}

func startMonitored(t *testing.T, env setting.Environment, times monitorTimes) *monitoredWorker {
	t.Helper()
	// A worker reads its settings again and again, and a test may change its map for
	// the next program.
	configured, err := readSettings(maps.Clone(env))
	require.NoError(t, err)
	configured.monitoring = times
	w := &monitoredWorker{address: configured.listen}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- configured.run(ctx, &w.log) }()
	stopped := false
	w.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			assert.NoError(t, <-ended)
		}
	}
	t.Cleanup(w.stop)
	return w
}

// get asks a worker; status 0 = it does not answer.
func get(address, path string) (status int, body string) {
	answer, err := http.Get("http://" + address + path)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err.Error()
	}
	return answer.StatusCode, string(text)
}

// awaitReadiness waits for what /readyz says.
func awaitReadiness(t *testing.T, address string, holds func(readiness) bool) readiness {
	t.Helper()
	var reported readiness
	var body string
	waiting.Until(t, func() bool {
		status := 0
		status, body = get(address, readyPath)
		reported = readiness{}
		if json.Unmarshal([]byte(body), &reported) != nil {
			return false
		}
		assert.Equal(t, reported.Ready, status == http.StatusOK, "%d %s", status, body)
		return holds(reported)
	}, "readiness")
	return reported
}

func isReady(r readiness) bool { return r.Ready }

// hasProblem shows a worker that is not ready for this reason, and no other.
func hasProblem(check, problem string) func(readiness) bool {
	return func(r readiness) bool {
		for name, c := range r.Checks {
			if c.OK == (name == check) {
				return false
			}
		}
		return !r.Ready && strings.Contains(r.Checks[check].Problem, problem)
	}
}

// families are the metrics of one scrape.
type families map[string]*dto.MetricFamily

func scrape(t *testing.T, address string) families {
	t.Helper()
	status, body := get(address, metricsPath)
	require.Equal(t, http.StatusOK, status, "%s", body)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(body))
	require.NoError(t, err)
	return parsed
}

// awaitScrape waits for metrics.
func awaitScrape(t *testing.T, address, what string, holds func(families) bool) (scraped families) {
	t.Helper()
	waiting.Until(t, func() bool {
		scraped = scrape(t, address)
		return holds(scraped)
	}, "%s", what)
	return scraped
}

// showsHeld: one rotation is held, as Temporal has it.
func showsHeld(f families) bool {
	return f.sum("keyturn_rotations_open", map[string]string{"phase": "held"}) == 1
}

// showsQuiet: no rotation is open, which is reported, and no request is under way.
func showsQuiet(f families) bool {
	return f["keyturn_rotations_open"] != nil && f.sum("keyturn_rotations_open", nil) == 0 &&
		f["keyturn_opsmanager_requests_in_flight"] != nil && f.sum("keyturn_opsmanager_requests_in_flight", nil) == 0
}

// sum adds the values of the series that have these labels; those of a
// histogram are how many were observed.
func (f families) sum(name string, labels map[string]string) (sum float64) {
	for _, series := range f[name].GetMetric() {
		has := map[string]string{}
		for _, pair := range series.GetLabel() {
			has[pair.GetName()] = pair.GetValue()
		}
		fits := true
		for label, value := range labels {
			fits = fits && has[label] == value
		}
		if fits {
			sum += series.GetCounter().GetValue() + series.GetGauge().GetValue() + float64(series.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// Several rotations, some of them in trouble, over two workers, the first of
// which ends while one is held: what was counted is what has happened.
func TestMetricsAgreeWithTheLedger(t *testing.T) {
	t.Parallel()
	began := time.Now()
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	orders := s.OM.AddShardedCluster(s.Project, "orders", 3)
	audit := s.OM.AddReplicaSet(s.Project, "audit")
	s.OM.Inject(simulator.PutCut(orders.ShardIDs[0], simulator.ApplyBefore))
	s.OM.Inject(simulator.RateLimited(http.MethodPut, orders.ShardIDs[1], "1"))
	s.OM.Inject(simulator.AccessListRefusal(http.MethodPut, orders.ShardIDs[2]))
	env := monitoredEnvironment(s)
	env[ledger.URLVariable] = "sqlite://" + filepath.Join(t.TempDir(), "ledger.db")
	addSchedule(s, "failed", s.TaskQueue, workflows.RotateClusterType, pausedByFailure)
	first := startMonitored(t, env, oftenLooking)
	awaitReadiness(t, first.address, isReady)

	s.RequireRotated(s.Start(s.Input(audit.ID)), 1)
	plan := s.Input(orders.ID)
	plan.DryRun = true
	_, err := s.Result(s.Start(plan))
	require.NoError(t, err)
	_, err = s.Result(s.StartAs("refused", map[string]any{"projectId": "x"}))
	fixture.RequireFailure(t, err, "InvalidInput")
	held := s.Input(orders.ID)
	held.OnFailure = workflows.OnFailureHold
	run := s.Start(held)
	s.Await(run.GetID(), func(p workflows.Progress) bool { return p.Phase == workflows.PhaseHeld })
	before := awaitScrape(t, first.address, "the held rotation and the paused schedule must show", func(f families) bool {
		return showsHeld(f) && f["keyturn_schedule_paused"] != nil
	})
	assert.Positive(t, before.sum("keyturn_rotations_idle_seconds", map[string]string{"phase": "held"}))
	assert.Less(t, before.sum("keyturn_rotations_idle_seconds", nil), time.Since(began).Seconds())
	first.stop()

	second := startMonitored(t, monitoredEnvironment(s), oftenLooking)
	awaitReadiness(t, second.address, isReady)
	replayed := awaitScrape(t, second.address, "the held rotation must show at another worker, too", showsHeld)
	assert.Zero(t, replayed.sum("keyturn_targets_ended_total", nil), "a replay counts nothing")
	_, err = s.Update(run.GetID(), workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{"orders-2"}})
	require.NoError(t, err)
	result, err := s.Result(run)
	require.NoError(t, err)
	require.Equal(t, workflows.OutcomeRotatedWithSkips, result.Outcome)
	after := awaitScrape(t, second.address, "no rotation is open any more, and no request under way", showsQuiet)
	both := func(name string, labels map[string]string) float64 {
		require.NotEqual(t, dto.MetricType_GAUGE, after[name].GetType(), "%s: gauges of two moments are not to be added", name)
		return before.sum(name, labels) + after.sum(name, labels)
	}

	for _, want := range []struct {
		name   string
		labels map[string]string
		value  float64
	}{
		{"keyturn_rotations_ended_total", nil, 4},
		{"keyturn_rotations_ended_total", map[string]string{"outcome": "rotated", "error": "none"}, 1},
		{"keyturn_rotations_ended_total", map[string]string{"outcome": "planned", "error": "none"}, 1},
		{"keyturn_rotations_ended_total", map[string]string{"outcome": "failed", "error": "InvalidInput"}, 1},
		{"keyturn_rotations_ended_total", map[string]string{"outcome": "rotatedWithSkips", "error": "none"}, 1},
		{"keyturn_rotation_duration_seconds", nil, 3},
		{"keyturn_targets_ended_total", map[string]string{"status": "planned"}, 4},
		{"keyturn_targets_ended_total", map[string]string{"status": "failed", "error": "Forbidden"}, 1},
		{"keyturn_targets_ended_total", map[string]string{"status": "failed"}, 1},
		{"keyturn_targets_ended_total", map[string]string{"status": "skipped"}, 1},
		{"keyturn_targets_ended_total", map[string]string{"status": "verified"}, float64(len(s.OM.Ledger().Rotations))},
		{"keyturn_targets_ambiguous_total", map[string]string{"status": "verified"}, 1},
		{"keyturn_targets_ambiguous_total", nil, 1},
		{"keyturn_retries_total", map[string]string{"activity_type": "RotateKey", "error": "RateLimited"}, 1},
		{"keyturn_retries_total", nil, 1},
	} {
		assert.InDelta(t, want.value, both(want.name, want.labels), 0, "%s%v", want.name, want.labels)
	}
	finished := before.sum("keyturn_cluster_last_verified_timestamp_seconds", map[string]string{"connection": "default", "project": s.Project, "cluster": audit.ID})
	assert.WithinRange(t, time.Unix(int64(finished), 0), began.Truncate(time.Second), time.Now())
	assert.Len(t, before["keyturn_cluster_last_verified_timestamp_seconds"].GetMetric(), 1, "audit alone was verified as a whole")

	second.stop() // the last of its requests is answered
	requireRequestsOfLedger(t, s, before, after)
	t.Run("and are those of the documentation", func(t *testing.T) { requireDocumented(t, before) })
}

// requireRequestsOfLedger compares the requests that cost something: the checks
// of access go on between the last scrape and the end.
func requireRequestsOfLedger(t *testing.T, s fixture.Server, scraped ...families) {
	t.Helper()
	type kind struct{ method, code string }
	want, got := map[kind]float64{}, map[kind]float64{}
	checks := 0.0
	for _, r := range s.OM.Ledger().Requests {
		code := "none"
		if r.Status != 0 {
			code = strconv.Itoa(r.Status)
		}
		if r.Kind == simulator.KindRoot {
			checks++
			continue
		}
		want[kind{r.Method, code}]++
	}
	for _, f := range scraped {
		for _, series := range f["keyturn_opsmanager_requests_total"].GetMetric() {
			var k kind
			for _, pair := range series.GetLabel() {
				switch pair.GetName() {
				case "method":
					k.method = pair.GetValue()
				case "code":
					k.code = pair.GetValue()
				}
			}
			got[k] += series.GetCounter().GetValue()
		}
	}
	for k, n := range want {
		if k.method == http.MethodPut {
			assert.InDelta(t, n, got[k], 0, "%v", k)
		} else {
			assert.GreaterOrEqual(t, got[k], n, "%v", k)
			assert.LessOrEqual(t, got[k], n+checks, "%v", k)
		}
	}
	for k := range got {
		assert.True(t, want[k] > 0 || k.method == http.MethodGet, "%v was counted, and never sent", k)
	}
}

func TestReadinessFollowsOpsManager(t *testing.T) {
	t.Parallel()
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	w := startMonitored(t, monitoredEnvironment(s), shortTimeouts)
	reported := awaitReadiness(t, w.address, isReady)
	assert.Equal(t, statePolling, reported.State)
	assert.NotNil(t, reported.Checks["opsManager.default"].LastRead)
	assert.Equal(t, []string{"opsManager.default", "temporal"}, slices.Sorted(maps.Keys(reported.Checks)))
	ready := func(value float64) func(families) bool {
		return func(f families) bool { return f["keyturn_ready"] != nil && f.sum("keyturn_ready", nil) == value }
	}
	awaitScrape(t, w.address, "keyturn_ready 1", ready(1))

	s.OM.Stop()
	awaitReadiness(t, w.address, hasProblem("opsManager.default", "no response"))
	awaitScrape(t, w.address, "keyturn_ready 0", ready(0))
	s.OM.Restart()
	awaitReadiness(t, w.address, isReady)

	s.OM.RemoveAPIKey(simulator.DefaultPublicKey)
	awaitReadiness(t, w.address, hasProblem("opsManager.default", "401"))
	assert.Positive(t, scrape(t, w.address).sum("keyturn_opsmanager_calls_total", map[string]string{"error": "Unauthorized"}))
	s.OM.AddAPIKey(simulator.APIKey{PublicKey: simulator.DefaultPublicKey, PrivateKey: simulator.DefaultPrivateKey})
	awaitReadiness(t, w.address, isReady)
}

func TestReadinessFollowsTemporal(t *testing.T) {
	t.Parallel()
	server := temporalserver.StartForTest(t, temporalserver.Options{})
	s := fixture.NewServerOn(t, server, simulator.Options{})
	server.Stop()
	w := startMonitored(t, monitoredEnvironment(s), shortTimeouts)
	reported := awaitReadiness(t, w.address, func(r readiness) bool { return r.Checks["opsManager.default"].OK })
	assert.Equal(t, stateStarting, reported.State)
	assert.Contains(t, reported.Checks["temporal"].Problem, "not connected")
	status, _ := get(w.address, healthPath)
	assert.Equal(t, http.StatusOK, status, "the process is alive all the same")

	require.NoError(t, server.Restart(t.Context()))
	awaitReadiness(t, w.address, isReady)
	server.Stop()
	awaitReadiness(t, w.address, hasProblem("temporal", "Temporal does not describe"))
	require.NoError(t, server.Restart(t.Context()))
	awaitReadiness(t, w.address, isReady)
}

// Nobody gets Ops Manager to be asked by asking the worker.
func TestProbesReachNobodyElse(t *testing.T) {
	t.Parallel()
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	env := monitoredEnvironment(s)
	worker := startWorker(t, env) // looks as often as usual
	worker.waitFor(t, "polling")
	awaitReadiness(t, env[listenVariable], isReady)
	began := time.Now()
	before := authenticated(s.OM)
	for range 200 {
		status, body := get(env[listenVariable], readyPath)
		require.Equal(t, http.StatusOK, status, "%s", body)
		status, _ = get(env[listenVariable], metricsPath)
		require.Equal(t, http.StatusOK, status)
	}
	assert.LessOrEqual(t, authenticated(s.OM)-before, 1+int(time.Since(began)/defaultTimes.check), "one each half minute, whoever asks")
}

// authenticated is how many requests had the right credentials.
func authenticated(om *simulator.Server) int {
	return len(om.Ledger().Select(func(r simulator.Request) bool { return r.Authenticated }))
}

func TestDrainingWorkerIsAliveAndNotReady(t *testing.T) {
	t.Parallel()
	server := temporalserver.Shared(t)
	opsManager := newSlowOpsManager(t)
	env := opsManager.environment(processEnvironment(t, server, "drains-monitored"))
	env[listenVariable] = freeAddress(t)
	worker := startWorker(t, env)
	worker.waitFor(t, "polling")
	startRotation(t, server.NewClient(t), "drains-monitored", "5196e5b0e4b0fca9cc88334c")
	waiting.Until(t, func() bool {
		return scrape(t, env[listenVariable]).sum("keyturn_opsmanager_requests_in_flight", nil) == 2
	}, "the check of access, and the activity's request")

	worker.signal(t, syscall.SIGTERM)
	awaitReadiness(t, env[listenVariable], func(r readiness) bool { return r.State == stateDraining && !r.Ready })
	status, _ := get(env[listenVariable], healthPath)
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, http.StatusServiceUnavailable, first(get(env[listenVariable], readyPath)))
	opsManager.answer()
	assert.Zero(t, worker.exitCode(t), "%s", worker.stderr.String())
	assert.Contains(t, worker.stderr.String(), "msg=stopped")
}

func first(status int, _ string) int { return status }

func TestHealthAsksTheWorkerOfThisMachine(t *testing.T) {
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	env := monitoredEnvironment(s)
	health := func(env setting.Environment) (code int, stderr string) {
		var out, complaint bytes.Buffer
		code = execute([]string{"health"}, env, &out, &complaint)
		assert.Empty(t, out.String())
		return code, complaint.String()
	}
	code, line := health(env)
	assert.Equal(t, exitFailed, code)
	assert.Equal(t, "keyturn-worker: the worker does not answer: connection refused\n", line)

	w := startMonitored(t, env, oftenLooking)
	awaitReadiness(t, w.address, isReady)
	_, port, err := net.SplitHostPort(w.address)
	require.NoError(t, err)
	for _, address := range []string{w.address, ":" + port, "0.0.0.0:" + port} {
		env[listenVariable] = address
		code, line = health(env)
		assert.Equal(t, 0, code, "%s: %s", address, line)
		assert.Empty(t, line)
	}
	s.OM.RemoveAPIKey(simulator.DefaultPublicKey)
	awaitReadiness(t, w.address, hasProblem("opsManager.default", "401"))
	code, line = health(env)
	assert.Equal(t, exitFailed, code)
	assert.Regexp(t, `^keyturn-worker: not ready: polling; opsManager\.default: OPS_MANAGER_PRIVATE_KEY: GET /api/public/v1\.0: 401 [^\n]*\n$`, line)

	code, line = health(setting.Environment{})
	assert.Equal(t, exitFailed, code)
	assert.Equal(t, "keyturn-worker: KEYTURN_LISTEN: is required: without it, the worker serves no probes\n", line)
	code, _ = health(setting.Environment{listenVariable: "nonsense"})
	assert.Equal(t, exitFailed, code)
}

func TestPortInUseIsAWrongSetting(t *testing.T) {
	isolateFromUser(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	env := workingEnvironment()
	env[listenVariable] = taken.Addr().String()
	var stderr bytes.Buffer
	require.Equal(t, exitFailed, execute(nil, env, io.Discard, &stderr))
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	assert.Equal(t, "keyturn-worker: KEYTURN_LISTEN: cannot listen on this address: address already in use", lines[len(lines)-1])
}

func TestLogNamesTheRotationInEveryLine(t *testing.T) {
	t.Parallel()
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	cluster := s.OM.AddReplicaSet(s.Project, "audit")
	s.OM.Inject(simulator.RateLimited(http.MethodPut, cluster.ID, "1"))
	s.OM.Inject(simulator.PutServerError(cluster.ID, simulator.ApplyNo))
	env := monitoredEnvironment(s)
	maps.Copy(env, setting.Environment{logFormatVariable: "json", logLevelVariable: "debug"})
	w := startMonitored(t, env, oftenLooking)
	s.RequireRotated(s.Start(s.Input(cluster.ID)), 1)
	w.stop()
	seen := map[string]bool{}
	for line := range strings.Lines(w.log.String()) {
		var entry map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &entry), line)
		if entry[workflowIDKey] == nil {
			continue
		}
		message := fmt.Sprint(entry["msg"])
		seen[message] = true
		assert.Equal(t, []any{"default", s.Project, cluster.ID}, []any{entry["connection"], entry["project"], entry["cluster"]}, line)
		assert.Equal(t, 1, strings.Count(line, `"project":`), line)
		if strings.Contains(line, "/encryptionKey") || strings.Contains(line, "previousKey") {
			assert.Equal(t, cluster.ID, entry[targetKey], line)
			assert.Equal(t, 1, strings.Count(line, `"target":`), line)
		}
		for _, duration := range []string{"pause", "lasted"} {
			if value, found := entry[duration]; found {
				_, err := time.ParseDuration(fmt.Sprint(value))
				assert.NoError(t, err, line)
			}
		}
	}
	for _, message := range []string{"PUT accepted", "retrying", "Activity error.", "target verified", "rotation ended", "ExecuteActivity"} {
		assert.True(t, seen[message], "%q must be in the log, which has %v", message, slices.Sorted(maps.Keys(seen)))
	}
}

// A rotation of deployments is one of the open rotations.
func TestOpenRotationsOfDeploymentsAreCounted(t *testing.T) {
	t.Parallel()
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	s.Deploy(simulator.DeploymentOptions{Clusters: []simulator.DeployedCluster{{Name: "audit"}}})
	w := startMonitored(t, monitoredEnvironment(s), oftenLooking)
	awaitReadiness(t, w.address, isReady)
	input := s.DeploymentInput()
	input.RequireApproval = true
	run := s.StartDeployment(input)
	awaitScrape(t, w.address, "the rotation that waits for approval must show", func(f families) bool {
		return f.sum("keyturn_rotations_open", map[string]string{"phase": "awaitingApproval"}) == 1
	})
	_, err := s.UpdateDeployment(run.GetID(), workflows.RejectUpdate, workflows.OperatorRequest{By: "lee", Reason: "not tonight"})
	require.NoError(t, err)
	_, err = s.DeploymentResult(run)
	fixture.RequireFailure(t, err, workflows.ErrorRejected)
	awaitScrape(t, w.address, "no rotation is open any more", showsQuiet)
}
