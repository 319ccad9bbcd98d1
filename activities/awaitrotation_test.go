package activities_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
)

// awaitInput awaits the members of a replica set.
func awaitInput(d deployed, replicaSet string, at time.Time) activities.AwaitRotationInput {
	in := activities.AwaitRotationInput{Scope: scope(), RotateAt: at, DeployTimeout: activities.Duration(20 * time.Second)}
	for _, name := range d.Members(replicaSet) {
		in.Processes = append(in.Processes, activities.ProcessToAwait{Process: name, Host: d.Process(name).Host})
	}
	return in
}

func await(t *testing.T, d deployed, a activityAttempt, in activities.AwaitRotationInput) (activities.AwaitRotationResult, json.RawMessage, error) {
	t.Helper()
	before := len(d.Puts())
	result, heartbeat, err := runDeployment[activities.AwaitRotationResult](t, d, a, activities.AwaitRotationName, in)
	assert.Len(t, d.Puts(), before, "awaiting publishes nothing")
	return result, heartbeat, err
}

// rotateSet publishes a time for a replica set.
func rotateSet(t *testing.T, d deployed, replicaSet string) time.Time {
	t.Helper()
	in := publishInput(d, replicaSet, now())
	_, _, err := publish(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	return in.RotateAt
}

func arrivedNames(processes []activities.ArrivedProcess) (names []string) {
	for _, p := range processes {
		names = append(names, p.Process)
	}
	slices.Sort(names)
	return names
}

// arrivalsNoted waits until so many processes have new keys, and the activity has read
// all of it since: the status, the hosts, and the status of the next turn.
func arrivalsNoted(rotations int) func(simulator.Ledger) bool {
	return func(l simulator.Ledger) bool {
		rotated := l.MemberRotationsOf(project, "")
		if len(rotated) < rotations {
			return false
		}
		since := rotated[rotations-1].At
		for _, kind := range []simulator.Kind{simulator.KindAutomationStatus, simulator.KindHosts, simulator.KindAutomationStatus} {
			later := l.Select(func(r simulator.Request) bool {
				return r.Kind == kind && r.Status == http.StatusOK && r.Start.After(since)
			})
			if len(later) == 0 {
				return false
			}
			since = later[0].Start
		}
		return true
	}
}

func TestAwaitRotation(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{MemberTime: 100 * time.Millisecond}, simulator.Options{})
	d.SetAgent("orders-0-2", simulator.Agent{Waits: 300 * time.Millisecond})
	in := awaitInput(d, "orders-0", rotateSet(t, d, "orders-0"))
	awaited, _, err := await(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	assert.Empty(t, awaited.Dropped)
	assert.Equal(t, d.Members("orders-0"), arrivedNames(awaited.Processes))
	for _, p := range awaited.Processes {
		assert.True(t, p.RestartedAt.After(in.RotateAt))
		assert.WithinDuration(t, d.Process(p.Process).LastRestart, p.RestartedAt, time.Second)
		assert.Equal(t, d.Version(), p.GoalVersion)
		assert.Len(t, d.Rotations(p.Process), 1)
	}
	assert.WithinDuration(t, time.Now(), awaited.ProgressAt, 5*time.Second)
}

// Others may publish meanwhile, as long as the time stays.
func TestOthersMayPublishWhileProcessesRestart(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{MemberTime: 100 * time.Millisecond}, simulator.Options{})
	at := rotateSet(t, d, "orders-0")
	go func() {
		_ = d.om.Await(t.Context(), func(l simulator.Ledger) bool { return len(l.MemberRotationsOf(project, "")) == 1 })
		d.Publish("dana", simulator.SetField(`1`, "x"))
	}()
	awaited, _, err := await(t, d, activityAttempt{}, awaitInput(d, "orders-0", at))
	require.NoError(t, err)
	assert.Len(t, awaited.Processes, 3)
	assert.Empty(t, awaited.Dropped)
}

// Processes whose time somebody has removed are reported, apart from those that had
// arrived. The same time is published again for them, and no process rotates twice.
func TestATimeThatIsDropped(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	for _, name := range []string{"orders-0-0", "orders-0-2"} {
		d.SetAgent(name, simulator.Agent{Waits: time.Hour})
	}
	published := publishInput(d, "orders-0", now())
	_, _, err := publish(t, d, activityAttempt{}, published)
	require.NoError(t, err)
	go func() {
		_ = d.om.Await(t.Context(), arrivalsNoted(1))
		d.Publish("dana", simulator.DropRotationTimes("orders-0-0", "orders-0-2"))
	}()
	in := awaitInput(d, "orders-0", published.RotateAt)
	awaited, _, err := await(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	assert.Equal(t, []string{"orders-0-1"}, arrivedNames(awaited.Processes))
	assert.Equal(t, []string{"orders-0-0", "orders-0-2"}, awaited.Dropped)

	d.SetAgent("orders-0-0", simulator.Agent{})
	d.SetAgent("orders-0-2", simulator.Agent{})
	published.Processes = slices.DeleteFunc(published.Processes, func(p activities.ProcessToPublish) bool { return p.Process == "orders-0-1" })
	in.Processes = slices.DeleteFunc(in.Processes, func(p activities.ProcessToAwait) bool { return p.Process == "orders-0-1" })
	in.ProgressAt = awaited.ProgressAt
	_, _, err = publish(t, d, activityAttempt{}, published)
	require.NoError(t, err)
	awaited, _, err = await(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	assert.Len(t, awaited.Processes, 2)
	for _, name := range d.Members("orders-0") {
		assert.Len(t, d.Rotations(name), 1, name)
	}
}

// A process that has restarted for another time, which somebody has published instead,
// has not arrived: its agent has reached a goal without the time.
func TestAGoalWithoutTheTimeIsNoArrival(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	d.SetAgent("audit-1", simulator.Agent{Waits: time.Hour})
	published := publishInput(d, "audit", now())
	published.Processes = published.Processes[1:2]
	_, _, err := publish(t, d, activityAttempt{}, published)
	require.NoError(t, err)
	// The first reading sees the time. The second one is made when all has happened.
	d.om.Inject(simulator.Fault{Method: http.MethodGet, Kind: simulator.KindAutomationStatus, Gated: true, Skip: 1})
	go func() {
		_ = d.om.Await(t.Context(), func(l simulator.Ledger) bool {
			return len(l.Select(func(r simulator.Request) bool { return r.Kind == simulator.KindAutomationStatus && r.Authenticated })) == 2
		})
		d.Publish("dana", simulator.SetRotationTime(published.RotateAt.Add(-time.Second), "audit-1"))
		d.SetAgent("audit-1", simulator.Agent{})
		_ = d.om.Await(t.Context(), func(l simulator.Ledger) bool { return len(l.MemberRotationsOf(project, "audit-1")) == 1 })
		d.om.ClearFaults()
	}()
	in := awaitInput(d, "audit", published.RotateAt)
	in.Processes = in.Processes[1:2]
	awaited, _, err := await(t, d, activityAttempt{requestTimeout: 10 * time.Second}, in)
	require.NoError(t, err)
	assert.Empty(t, awaited.Processes)
	assert.Equal(t, []string{"audit-1"}, awaited.Dropped)
	assert.True(t, d.Process("audit-1").LastRestart.After(in.RotateAt))
}

func TestADeploymentThatFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		agent   simulator.Agent
		conduct simulator.Conduct
		arrived []string
		says    []string
		code    string
	}{
		"an agent's error": {agent: simulator.Agent{ErrorCode: 143, ErrorText: "the KMIP server cannot be reached"}, arrived: []string{"orders-0-1"}, code: "143",
			says: []string{"process orders-0-2 (orders-0-2.db.example.net:", "agent's error 143: the KMIP server cannot be reached", "not arrived: orders-0-0 (at version 41), orders-0-2 (agent's error 143", "arrived: orders-0-1;"}},
		"a silent agent": {agent: simulator.Agent{Silent: true}, arrived: []string{"orders-0-0", "orders-0-1"},
			says: []string{"no progress for the deployTimeout of 4s", "not arrived: orders-0-2 (at version 41)", "; arrived: orders-0-0, orders-0-1; "}},
		"a process that is down": {agent: simulator.Agent{Down: true}, arrived: []string{"orders-0-0", "orders-0-1"}, says: []string{"no progress"}},
		"an agent that lies": {agent: simulator.Agent{WronglyAtGoal: true, Silent: true}, arrived: []string{"orders-0-0", "orders-0-1"},
			says: []string{"orders-0-2 (at its goal, and not restarted since 20"}},
		"a goal that never moves": {conduct: simulator.Conduct{VersionStep: 1, GoalFrozen: true}, says: []string{"goal version 41", "arrived: none"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
			d.SetAgent("orders-0-2", c.agent)
			d.SetConduct(c.conduct)
			in := awaitInput(d, "orders-0", rotateSet(t, d, "orders-0"))
			in.DeployTimeout = activities.Duration(4 * time.Second)
			_, _, err := await(t, d, activityAttempt{}, in)
			appErr := requireType(t, err, activities.ErrorDeploymentFailed, false)
			for _, part := range append(c.says, "GET /api/public/v1.0/groups/"+project+"/automationStatus", "; ", "then retry") {
				assert.Contains(t, appErr.Message(), part)
			}
			var details activities.FailureDetails
			require.NoError(t, appErr.Details(&details))
			assert.Equal(t, c.arrived, arrivedNames(details.Arrived))
			assert.Equal(t, c.code, details.ErrorCode)
		})
	}
}

// A message has a limit, whatever the agents report.
func TestTheMessageOfAFailedDeploymentIsBounded(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{Clusters: []simulator.DeployedCluster{{Name: strings.Repeat("long", 60), Members: 20}}}, simulator.Options{})
	for _, p := range d.Processes() {
		d.SetAgent(p.Name, simulator.Agent{ErrorCode: 1, ErrorText: strings.Repeat("error", 1000)})
	}
	in := awaitInput(d, strings.Repeat("long", 60), rotateSet(t, d, strings.Repeat("long", 60)))
	_, _, err := await(t, d, activityAttempt{}, in)
	appErr := requireType(t, err, activities.ErrorDeploymentFailed, false)
	assert.Contains(t, appErr.Message(), "and 15 more")
	assert.Less(t, len(appErr.Message()), 3_000)
}

// One reading with an error is no failure: agents report some that pass.
func TestAPassingErrorOfAnAgent(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	d.SetAgent("orders-0-2", simulator.Agent{ErrorCode: 20})
	at := rotateSet(t, d, "orders-0")
	go func() {
		_ = d.om.Await(t.Context(), func(l simulator.Ledger) bool {
			return len(l.Select(func(r simulator.Request) bool { return r.Kind == simulator.KindAutomationStatus && r.Status == 200 })) >= 1
		})
		d.SetAgent("orders-0-2", simulator.Agent{})
	}()
	in := awaitInput(d, "orders-0", at)
	awaited, _, err := await(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	assert.Len(t, awaited.Processes, 3)
}

// An agent that is too early with its word is waited for.
func TestAnAgentThatIsTooEarly(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	d.SetAgent("orders-0-2", simulator.Agent{WronglyAtGoal: true, Waits: 500 * time.Millisecond})
	in := awaitInput(d, "orders-0", rotateSet(t, d, "orders-0"))
	awaited, _, err := await(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	assert.Len(t, awaited.Processes, 3)
	for _, name := range d.Members("orders-0") {
		assert.Len(t, d.Rotations(name), 1, name)
	}
}

// The time without progress begins again with each step of each process.
func TestProgressExtendsADeployment(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{MemberTime: 1500 * time.Millisecond}, simulator.Options{})
	in := awaitInput(d, "orders-0", rotateSet(t, d, "orders-0"))
	in.DeployTimeout = activities.Duration(4 * time.Second)
	// Temporal would end an attempt that lasts longer: the next one continues.
	short := activityAttempt{info: func(info *activity.Info) { info.Deadline = info.StartedTime.Add(3 * time.Second) }}
	_, heartbeat, err := await(t, d, short, in)
	requireType(t, err, "Interrupted", true)
	assert.Contains(t, string(heartbeat), `"arrived":[{"process":"orders-0-1"`)
	awaited, _, err := await(t, d, activityAttempt{details: heartbeat, info: func(info *activity.Info) { info.Attempt = 2 }}, in)
	require.NoError(t, err)
	assert.Len(t, awaited.Processes, 3)
	assert.Less(t, len(d.Rotations("")), 4)
}

// A later run goes on from the progress of the one before.
func TestTheTimeWithoutProgressIsOneForAllRuns(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	d.SetAgent("orders-0-2", simulator.Agent{Silent: true})
	in := awaitInput(d, "orders-0", rotateSet(t, d, "orders-0"))
	in.Processes, in.ProgressAt = in.Processes[2:], time.Now().Add(-2*time.Hour)
	in.DeployTimeout = activities.Duration(2 * time.Second)
	readings := func() int {
		return len(d.om.Ledger().Select(func(r simulator.Request) bool { return r.Kind == simulator.KindAutomationStatus && r.Authenticated }))
	}
	_, _, err := await(t, d, activityAttempt{}, in)
	requireType(t, err, activities.ErrorDeploymentFailed, false)
	assert.Equal(t, 1, readings(), "the first reading is the last one")

	in.ProgressAt = time.Now()
	details := map[string]any{"progressAt": time.Now().Add(-2 * time.Hour)}
	_, _, err = await(t, d, activityAttempt{details: details}, in)
	requireType(t, err, activities.ErrorDeploymentFailed, false)
	assert.Equal(t, 2, readings())
}

// A killed worker's processes are not forgotten, even where their time is gone since.
func TestArrivalsOutliveTheirWorker(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	d.SetAgent("orders-0-2", simulator.Agent{Silent: true})
	in := awaitInput(d, "orders-0", rotateSet(t, d, "orders-0"))
	stop := make(chan struct{})
	go func() {
		_ = d.om.Await(t.Context(), arrivalsNoted(2))
		close(stop)
	}()
	_, heartbeat, err := await(t, d, activityAttempt{stop: stop}, in)
	requireType(t, err, "Interrupted", true)
	d.Publish("dana", simulator.DropRotationTimes(d.Members("orders-0")...))
	second := activityAttempt{details: heartbeat, info: func(info *activity.Info) { info.Attempt = 2 }}
	awaited, _, err := await(t, d, second, in)
	require.NoError(t, err)
	assert.Equal(t, []string{"orders-0-0", "orders-0-1"}, arrivedNames(awaited.Processes))
	assert.Equal(t, []string{"orders-0-2"}, awaited.Dropped)
}

func TestTransientErrorsOfAwaitingAreRetried(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	in := awaitInput(d, "orders-0", rotateSet(t, d, "orders-0"))
	for _, kind := range []simulator.Kind{simulator.KindAutomationConfig, simulator.KindAutomationStatus, simulator.KindHosts} {
		d.om.Inject(simulator.Fault{Method: http.MethodGet, Kind: kind, Status: 503})
		d.om.Inject(simulator.Fault{Method: http.MethodGet, Kind: kind, Status: 200, Body: "<html>", ContentType: "text/html"})
	}
	awaited, _, err := await(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	assert.Len(t, awaited.Processes, 3)
	assert.Zero(t, d.om.FaultsLeft())
}

// The configuration, which may be megabytes, is read once for each goal version.
func TestTheConfigurationIsReadOncePerGoal(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{MemberTime: 200 * time.Millisecond}, simulator.Options{})
	in := awaitInput(d, "orders-0", rotateSet(t, d, "orders-0"))
	before := len(configRequests(d))
	_, _, err := await(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	assert.Equal(t, before+1, len(configRequests(d)))
}

// A process that has restarted, and whose agent has not reached the goal, is not done:
// the agent may restart it once more.
func TestARestartIsNotEnough(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	in := awaitInput(d, "orders-0", rotateSet(t, d, "orders-0"))
	_, _, err := await(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	d.SetAgent("orders-0-2", simulator.Agent{Silent: true})
	d.Publish("dana", simulator.SetField(`1`, "x")) // the next goal, which this agent does not reach
	in.DeployTimeout = activities.Duration(2 * time.Second)
	_, _, err = await(t, d, activityAttempt{}, in)
	appErr := requireType(t, err, activities.ErrorDeploymentFailed, false)
	assert.Contains(t, appErr.Message(), "not arrived: orders-0-2 (at version 42)")
}
