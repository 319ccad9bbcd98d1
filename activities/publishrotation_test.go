package activities_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"keyturn/activities"
	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
)

// publishInput publishes a time for the members of a replica set.
func publishInput(d deployed, replicaSet string, at time.Time) activities.PublishRotationInput {
	in := activities.PublishRotationInput{
		Scope: scope(), RotateAt: at, SettleTime: activities.Duration(300 * time.Millisecond), FirstAttemptToken: runID,
	}
	for _, name := range d.Members(replicaSet) {
		previous := ""
		if text := d.RotationTimes()[name]; text != "" {
			_ = json.Unmarshal([]byte(text), &previous)
		}
		in.Processes = append(in.Processes, activities.ProcessToPublish{Process: name, PreviousRotateAt: previous})
	}
	return in
}

func publish(t *testing.T, d deployed, a activityAttempt, in activities.PublishRotationInput) (activities.PublishRotationResult, json.RawMessage, error) {
	t.Helper()
	if a.info == nil {
		a.info = firstAttempt
	}
	return runDeployment[activities.PublishRotationResult](t, d, a, activities.PublishRotationName, in)
}

// now is a time to publish.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// requirePublished fails if a process of the input has not the time, or if a PUT
// has changed any other byte or any other process.
func requirePublished(t *testing.T, d deployed, in activities.PublishRotationInput) {
	t.Helper()
	times := d.RotationTimes()
	for _, process := range in.Processes {
		assert.Equal(t, `"`+opsmanager.RotationTime(in.RotateAt)+`"`, times[process.Process], process.Process)
	}
	requireOnlyTimes(t, d, in)
}

func requireOnlyTimes(t *testing.T, d deployed, in activities.PublishRotationInput) {
	t.Helper()
	known := map[string]bool{}
	for _, process := range in.Processes {
		known[process.Process] = true
	}
	for _, put := range d.Puts() {
		assert.Empty(t, put.Changes)
		for _, change := range put.Rotations {
			assert.True(t, known[change.Process], change.Process)
			assert.Equal(t, `"`+opsmanager.RotationTime(in.RotateAt)+`"`, change.After)
		}
	}
	for _, process := range in.Processes {
		assert.LessOrEqual(t, len(d.Rotations(process.Process)), 1, "%s has one new key", process.Process)
	}
}

func configRequests(d deployed) (calls []string) {
	for _, r := range d.om.Ledger().Select(func(r simulator.Request) bool { return r.Authenticated && r.Kind == simulator.KindAutomationConfig }) {
		calls = append(calls, r.Method)
	}
	return calls
}

func puts(d deployed) (n int) {
	for _, method := range configRequests(d) {
		if method == http.MethodPut {
			n++
		}
	}
	return n
}

func TestPublishRotation(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]simulator.DeploymentOptions{
		"without secrets": {}, "with secrets": {WithoutNoSecrets: true}, "3 MB": {DocumentSize: 3 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, o, simulator.Options{})
			in := publishInput(d, "orders-0", now())
			version := d.Version()
			published, heartbeat, err := publish(t, d, activityAttempt{requestTimeout: 10 * time.Second}, in)
			require.NoError(t, err)
			requirePublished(t, d, in)
			assert.Equal(t, version+1, published.Version)
			assert.Equal(t, version, published.VersionBefore)
			assert.False(t, published.AlreadyPublished)
			assert.False(t, published.Ambiguous)
			assert.Nil(t, published.ConcurrentChange)
			assert.Equal(t, 1, published.Attempts)
			assert.WithinDuration(t, time.Now(), published.PublishedAt, 5*time.Second)
			assert.Contains(t, string(heartbeat), `"versionBefore":41`, "Temporal has it before the PUT")
			if !o.WithoutNoSecrets {
				assert.Equal(t, []string{"GET", "GET", "PUT", "GET"}, configRequests(d))
				assert.True(t, d.Puts()[0].NoSecrets)
			}

			again, _, err := publish(t, d, activityAttempt{requestTimeout: 10 * time.Second}, in)
			require.NoError(t, err)
			assert.True(t, again.AlreadyPublished)
			assert.Zero(t, again.VersionBefore)
			assert.Equal(t, published.Version, again.Version)
			assert.Equal(t, 1, puts(d))
		})
	}
}

// A process that has the time is left alone, whatever the others need.
func TestTheTimeIsPublishedWhereItIsAbsent(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	in := publishInput(d, "orders-0", now())
	d.Publish("dana", simulator.SetRotationTime(in.RotateAt, "orders-0-1"))
	published, _, err := publish(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	assert.False(t, published.AlreadyPublished)
	requirePublished(t, d, in)
	require.Len(t, d.Puts(), 1)
	assert.Len(t, d.Puts()[0].Rotations, 2)
}

// Ops Manager may write a time in another form.
func TestTheSameTimeInAnotherForm(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	in := publishInput(d, "orders-0", now())
	for _, name := range d.Members("orders-0") {
		d.Edit(simulator.SetProcessField(name, `"`+in.RotateAt.Format("2006-01-02T15:04:05.000Z0700")+`"`, "lastKmipMasterKeyRotation"))
	}
	published, _, err := publish(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	assert.True(t, published.AlreadyPublished)

	d.Edit(simulator.SetProcessField("orders-1-1", `"2025-06-01T03:00:00.000+00:00"`, "lastKmipMasterKeyRotation"))
	in = publishInput(d, "orders-1", now())
	in.Processes[1].PreviousRotateAt = "2025-06-01T03:00:00Z"
	_, _, err = publish(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	requirePublished(t, d, in)
}

func putConfig(f simulator.Fault) simulator.Fault {
	f.Method, f.Kind = http.MethodPut, simulator.KindAutomationConfig
	return f
}

func TestAPublicationOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault simulator.Fault
		puts  int
	}{
		"500 after it took effect":          {simulator.Fault{Status: 500, Apply: simulator.ApplyBefore}, 1},
		"500 and no effect":                 {simulator.Fault{Status: 500, Apply: simulator.ApplyNo}, 2},
		"502 after it took effect":          {simulator.Fault{Status: 502, Body: "<html>", ContentType: "text/html", Apply: simulator.ApplyBefore}, 1},
		"an HTML page after it took effect": {simulator.Fault{Status: 200, Body: "<html>", ContentType: "text/html", Apply: simulator.ApplyBefore}, 1},
		"answer lost":                       {simulator.Fault{Cut: simulator.CutNoAnswer, Apply: simulator.ApplyBefore}, 1},
		"request lost":                      {simulator.Fault{Cut: simulator.CutNoAnswer, Apply: simulator.ApplyNo}, 2},
		"timeout after it took effect":      {simulator.Fault{Hang: true, Apply: simulator.ApplyBefore}, 1},
		"takes effect while it is settled": {
			simulator.Fault{Status: 500, Apply: simulator.ApplyLate, ApplyAfter: 150 * time.Millisecond}, 1},
		"takes effect after a second": { // when a PUT that was refused would be repeated
			simulator.Fault{Status: 500, Apply: simulator.ApplyLate, ApplyAfter: 1800 * time.Millisecond}, 1},
		"accepted, and takes effect late": {simulator.Fault{Status: 200, Body: "{}", Apply: simulator.ApplyLate, ApplyAfter: 150 * time.Millisecond}, 1},
		"accepted without an effect":      {simulator.Fault{Status: 200, Body: "{}", Apply: simulator.ApplyNo}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
			d.om.Inject(putConfig(c.fault))
			in := publishInput(d, "orders-0", now())
			in.SettleTime = max(in.SettleTime, activities.Duration(2*c.fault.ApplyAfter))
			published, _, err := publish(t, d, activityAttempt{}, in)
			require.NoError(t, err)
			requirePublished(t, d, in)
			assert.Equal(t, c.puts, puts(d))
			assert.Equal(t, !strings.HasPrefix(name, "accepted"), published.Ambiguous)
			assert.Nil(t, published.ConcurrentChange)
			for _, put := range d.Puts() {
				assert.Empty(t, put.Overwrote)
			}
		})
	}
}

// An outcome that stays unknown is final, and names what to do.
func TestAPublicationThatCannotBeReadBack(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	d.om.Inject(putConfig(simulator.Fault{Status: 500, Apply: simulator.ApplyBefore}))
	d.om.Inject(simulator.Fault{Method: http.MethodGet, Kind: simulator.KindAutomationConfig, Status: 503, Skip: 2}.Always())
	in := publishInput(d, "orders-0", now())
	in.RetryTimeout = activities.Duration(time.Second)
	_, _, err := publish(t, d, activityAttempt{}, in)
	appErr := requireType(t, err, activities.ErrorOpsManagerUnavailable, false)
	assert.Contains(t, appErr.Message(), "PUT outcome unknown")
	var details activities.FailureDetails
	require.NoError(t, appErr.Details(&details))
	assert.True(t, details.Ambiguous)
	assert.EqualValues(t, 41, details.VersionBefore)
	assert.False(t, details.PutRefused)

	// So the next run finds it, and reports whoever published in between.
	d.om.ClearFaults()
	in.FirstAttemptToken, in.VersionBefore = "", details.VersionBefore
	published, _, err := publish(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	assert.False(t, published.AlreadyPublished)
	assert.True(t, published.Ambiguous)
	assert.Nil(t, published.ConcurrentChange)
	d.Publish("dana", simulator.SetField(`1`, "x"))
	published, _, err = publish(t, d, activityAttempt{}, in)
	require.NoError(t, err)
	require.NotNil(t, published.ConcurrentChange)
	assert.Equal(t, "dana", published.ConcurrentChange.Publishers[0].By)
	assert.Equal(t, 1, puts(d))
}

func TestAPublicationThatNeverTakesEffect(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault     simulator.Fault
		errorType activities.ErrorType
		says      string
	}{
		"accepted":     {simulator.Fault{Status: 200, Body: "{}", Apply: simulator.ApplyNo}, activities.ErrorUnexpectedResponse, "does not show"},
		"HTML":         {simulator.Fault{Status: 200, Body: "<html>", ContentType: "text/html", Apply: simulator.ApplyNo}, activities.ErrorUnexpectedResponse, "proxy"},
		"500":          {simulator.Fault{Status: 500, Apply: simulator.ApplyNo}, activities.ErrorOpsManagerUnavailable, "gave up after retrying"},
		"409":          {simulator.Fault{Status: 409, Body: `{"errorCode":"AUTOMATION_CONFIG_CONCURRENT_MODIFICATION"}`, Apply: simulator.ApplyNo}, activities.ErrorOpsManagerUnavailable, "CONCURRENT_MODIFICATION"},
		"429":          {simulator.Fault{Status: 429, Header: map[string]string{"Retry-After": "3600"}, Apply: simulator.ApplyNo}, activities.ErrorRateLimited, "not retried"},
		"400":          {simulator.Fault{Status: 400, Body: `{"errorCode":"INVALID_JSON","detail":"` + simulator.PlantedConfigSecret + `"}`, Apply: simulator.ApplyNo}, activities.ErrorUnexpectedResponse, "INVALID_JSON"},
		"403":          {simulator.Fault{Status: 403, Body: `{"errorCode":"USER_UNAUTHORIZED"}`, Apply: simulator.ApplyNo}, activities.ErrorForbidden, "Project Automation Admin"},
		"not the path": {simulator.Fault{Status: 404, Body: `{"errorCode":"GROUP_NOT_FOUND"}`, Apply: simulator.ApplyNo}, activities.ErrorNotFound, "projectId"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
			d.om.Inject(putConfig(c.fault).Always())
			in := publishInput(d, "orders-0", now())
			in.RetryTimeout, in.SettleTime = activities.Duration(2*time.Second), activities.Duration(100*time.Millisecond)
			_, _, err := publish(t, d, activityAttempt{}, in)
			appErr := requireType(t, err, c.errorType, false)
			assert.Contains(t, appErr.Message(), c.says)
			assert.Contains(t, appErr.Message(), "PUT /api/public/v1.0/groups/"+project+"/automationConfig")
			var details activities.FailureDetails
			if appErr.HasDetails() {
				require.NoError(t, appErr.Details(&details))
				assert.True(t, details.PutRefused)
			}
			assert.Empty(t, d.Rotations(""))
			requireOnlyTimes(t, d, in)
		})
	}
}

func TestTheOperatorsLockRefusesAPublication(t *testing.T) {
	t.Parallel()
	for _, status := range []int{401, 403} {
		d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
		d.ExternallyManaged("mongodb-enterprise-operator", status)
		_, _, err := publish(t, d, activityAttempt{}, publishInput(d, "orders-0", now()))
		appErr := requireType(t, err, activities.ErrorExternallyManaged, false)
		assert.Contains(t, appErr.Message(), "do not remove the policy")
		assert.Equal(t, 1, puts(d))
	}
}

// A 409 and a 429 are no effect: the configuration is read again before the next PUT.
func TestARefusedPublicationIsRepeated(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]simulator.Fault{
		"409": {Status: 409, Body: `{"errorCode":"AUTOMATION_CONFIG_CONCURRENT_MODIFICATION"}`},
		"429": {Status: 429, Header: map[string]string{"Retry-After": "1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
			fault.Apply = simulator.ApplyNo
			d.om.Inject(putConfig(fault))
			in := publishInput(d, "orders-0", now())
			go func() {
				if d.om.Await(t.Context(), func(simulator.Ledger) bool { return puts(d) == 1 }) == nil {
					d.Publish("dana", simulator.SetField(`1`, "x")) // the other one
				}
			}()
			published, _, err := publish(t, d, activityAttempt{}, in)
			require.NoError(t, err)
			requirePublished(t, d, in)
			assert.False(t, published.Ambiguous)
			assert.Nil(t, published.ConcurrentChange)
			assert.Empty(t, d.Puts()[1].Overwrote)
			assert.Contains(t, d.Text(), `"x":1`)
		})
	}
}

// What is published between the two readings is read again, and survives.
func TestAChangeBetweenTheReadingsSurvives(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	d.om.Inject(simulator.Fault{Method: http.MethodGet, Kind: simulator.KindAutomationConfig, Gated: true, Skip: 1})
	in := publishInput(d, "orders-0", now())
	go func() {
		if d.om.Await(t.Context(), func(simulator.Ledger) bool { return len(configRequests(d)) == 2 }) == nil {
			d.Publish("dana", simulator.SetField(`1`, "x"))
			d.om.ClearFaults()
		}
	}()
	published, _, err := publish(t, d, activityAttempt{requestTimeout: 10 * time.Second}, in)
	require.NoError(t, err)
	requirePublished(t, d, in)
	assert.Equal(t, []string{"GET", "GET", "GET", "PUT", "GET"}, configRequests(d))
	assert.Nil(t, published.ConcurrentChange)
	assert.Empty(t, d.Puts()[0].Overwrote)
	assert.Contains(t, d.Text(), `"x":1`)
}

// A publication between the last reading and the PUT is lost, and reported with who
// made it.
func TestAChangeDirectlyBeforeThePutIsReported(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	d.Publish("erin", simulator.SetField(`0`, "x"))
	before := d.Version()
	in := publishInput(d, "orders-0", now())
	rival := activityAttempt{confirm: func() error {
		d.Publish("dana", simulator.SetField(`1`, "x"))
		return nil
	}}
	published, _, err := publish(t, d, rival, in)
	require.NoError(t, err)
	requirePublished(t, d, in)
	require.NotNil(t, published.ConcurrentChange)
	assert.Equal(t, before, published.ConcurrentChange.VersionBefore)
	assert.Equal(t, before+2, published.ConcurrentChange.VersionAfter)
	assert.NotEmpty(t, d.Puts()[0].Overwrote, "and that is what it was about")
	var by []string
	for _, publisher := range published.ConcurrentChange.Publishers {
		by = append(by, publisher.By)
		assert.WithinDuration(t, time.Now(), publisher.At, 10*time.Second)
	}
	require.GreaterOrEqual(t, len(by), 2)
	assert.Equal(t, []string{simulator.DefaultPublicKey, "dana"}, by[:2], "the newest first")
}

func TestPublishersThatCannotBeReadFailNothing(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	d.SetConduct(simulator.Conduct{VersionStep: 2})
	d.om.Inject(simulator.Fault{Method: http.MethodGet, Kind: simulator.KindEvents, Status: 403, Body: `{"errorCode":"USER_UNAUTHORIZED"}`}.Always())
	published, _, err := publish(t, d, activityAttempt{}, publishInput(d, "orders-0", now()))
	require.NoError(t, err)
	require.NotNil(t, published.ConcurrentChange)
	assert.Empty(t, published.ConcurrentChange.Publishers)
}

func TestAConfigurationThatMustNotGetTheTime(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change    func(text []byte) []byte
		errorType activities.ErrorType
		says      []string
	}{
		"rotated by others": {simulator.SetRotationTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), "orders-0-1"), activities.ErrorRotatedByOthers,
			[]string{"orders-0-1 (2026-01-02T03:04:05Z, was 2025-06-01T03:00:00Z)", "nothing was sent"}},
		"the previous time is gone": {simulator.DropRotationTimes("orders-0-1"), activities.ErrorRotatedByOthers, []string{"orders-0-1 (none, was 2025"}},
		"a process is gone": {simulator.SetProcessField("orders-0-2", `"renamed"`, "name"), activities.ErrorUnexpectedTopology,
			[]string{"orders-0-2", "plan the rotation again"}},
		"a pinned key": {simulator.SetProcessField("orders-0-2", `"7"`, "args2_6", "security", "kmip", "keyIdentifier"), activities.ErrorKeyIdentifierPinned,
			[]string{"orders-0-2", "keyIdentifier"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
			in := publishInput(d, "orders-0", now())
			d.Edit(c.change)
			_, _, err := publish(t, d, activityAttempt{}, in)
			appErr := requireType(t, err, c.errorType, false)
			for _, part := range c.says {
				assert.Contains(t, appErr.Message(), part)
			}
			assert.Zero(t, puts(d))
			details := detailsOf(t, appErr)
			assert.Zero(t, details.VersionBefore)
			assert.False(t, details.Ambiguous || details.EarlierPut, "so that another time may be chosen")

			in.VersionBefore, in.FirstAttemptToken = 40, ""
			_, _, err = publish(t, d, activityAttempt{}, in)
			appErr = requireType(t, err, c.errorType, false)
			assert.Contains(t, appErr.Message(), "no further PUT was sent")
			assert.EqualValues(t, 40, detailsOf(t, appErr).VersionBefore)
		})
	}
}

func detailsOf(t *testing.T, err *temporal.ApplicationError) (details activities.FailureDetails) {
	t.Helper()
	require.NoError(t, err.Details(&details))
	return details
}

func TestInputsThatAreNoPublication(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	for name, change := range map[string]func(*activities.PublishRotationInput){
		"no process":      func(in *activities.PublishRotationInput) { in.Processes = nil },
		"a process twice": func(in *activities.PublishRotationInput) { in.Processes[1] = in.Processes[0] },
		"no name":         func(in *activities.PublishRotationInput) { in.Processes[1].Process = "" },
		"no time":         func(in *activities.PublishRotationInput) { in.RotateAt = time.Time{} },
		"a fraction":      func(in *activities.PublishRotationInput) { in.RotateAt = in.RotateAt.Add(time.Millisecond) },
	} {
		in := publishInput(d, "orders-0", now())
		change(&in)
		_, _, err := publish(t, d, activityAttempt{}, in)
		requireType(t, err, activities.ErrorInvalidInput, false)
		assert.Empty(t, configRequests(d), name)
	}
}

// The attempt after one whose worker was killed in the middle of a PUT finds what
// came of it, and publishes only the same time, where it is absent.
func TestTheAttemptAfterAKilledWorker(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault simulator.Fault
		puts  int
	}{
		"its PUT took effect":                  {simulator.Fault{Apply: simulator.ApplyBefore}, 1},
		"its PUT was lost":                     {simulator.Fault{Apply: simulator.ApplyNo}, 2},
		"its PUT takes effect during settling": {simulator.Fault{Apply: simulator.ApplyLate, ApplyAfter: 400 * time.Millisecond}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
			in := publishInput(d, "orders-0", now())
			c.fault.Hang = true
			d.om.Inject(putConfig(c.fault))
			// The first attempt never learns of it: its worker stops.
			stop := make(chan struct{})
			go func() {
				_ = d.om.Await(t.Context(), func(simulator.Ledger) bool { return puts(d) == 1 })
				close(stop)
			}()
			cut, heartbeat, err := publish(t, d, activityAttempt{stop: stop, requestTimeout: 100 * time.Millisecond}, in)
			require.NoError(t, err)
			if cut.OutcomeUnknown {
				assert.EqualValues(t, 41, cut.VersionBefore)
				assert.True(t, cut.Ambiguous)
				assert.Zero(t, cut.PublishedAt)
			}
			in.SettleTime = activities.Duration(600 * time.Millisecond)
			second := activityAttempt{details: heartbeat, info: func(info *activity.Info) { firstAttempt(info); info.Attempt = 2 }}
			published, _, err := publish(t, d, second, in)
			require.NoError(t, err)
			requirePublished(t, d, in)
			assert.Equal(t, c.puts, puts(d))
			assert.True(t, published.Ambiguous)
			assert.False(t, published.AlreadyPublished)
			assert.Nil(t, published.ConcurrentChange)
			assert.EqualValues(t, 41, published.VersionBefore)
		})
	}
}

// A run that cannot prove to be the first observes the absence of the time before it
// sends a PUT, whatever happens to the attempts' numbers.
func TestAnUnprovenPublicationReadsFirst(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		info  func(*activity.Info)
		token string
	}{
		"without a token": {firstAttempt, ""},
		"another run":     {firstAttempt, "another-run"},
		"after a reset": {func(info *activity.Info) {
			firstAttempt(info)
			info.ScheduledTime = info.StartedTime.Add(-2 * time.Hour)
		}, runID},
		"a second attempt": {func(info *activity.Info) { firstAttempt(info); info.Attempt = 2 }, runID},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
			in := publishInput(d, "orders-0", now())
			in.FirstAttemptToken = c.token
			started := time.Now()
			published, _, err := publish(t, d, activityAttempt{info: c.info}, in)
			require.NoError(t, err)
			requirePublished(t, d, in)
			assert.GreaterOrEqual(t, time.Since(started), in.SettleTime.Std())
			assert.False(t, published.AlreadyPublished)
			assert.Equal(t, 1, puts(d))
		})
	}
}

// Without proof that Temporal still counts on this attempt, no PUT is sent.
func TestNoPublicationWithoutALease(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	in := publishInput(d, "orders-0", now())
	_, heartbeat, err := publish(t, d, activityAttempt{confirm: func() error { return errors.New(`the activity "x" is another worker's`) }}, in)
	requireType(t, err, "Interrupted", true)
	assert.Contains(t, string(heartbeat), `"putRefused":true`)
	assert.Zero(t, puts(d))

	// So the next attempt need not wait.
	in.SettleTime = activities.Duration(time.Hour)
	second := activityAttempt{details: heartbeat, info: func(info *activity.Info) { firstAttempt(info); info.Attempt = 2 }}
	_, _, err = publish(t, d, second, in)
	require.NoError(t, err)
	requirePublished(t, d, in)
}

// A PUT's outcome is settled even if the activity is canceled, paused or reset
// meanwhile.
func TestACanceledPublicationIsSettled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		apply     simulator.Apply
		published bool
	}{
		"took effect": {simulator.ApplyBefore, true},
		"no effect":   {simulator.ApplyNo, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
			d.om.Inject(putConfig(simulator.Fault{Status: 500, Delay: 100 * time.Millisecond, Apply: c.apply}))
			in := publishInput(d, "orders-0", now())
			canceled := activityAttempt{context: func(ctx context.Context) context.Context {
				ctx, cancel := context.WithCancel(ctx)
				go func() {
					_ = d.om.Await(t.Context(), func(simulator.Ledger) bool { return puts(d) == 1 })
					cancel()
				}()
				return ctx
			}}
			_, heartbeat, err := publish(t, d, canceled, in)
			assert.Equal(t, 1, puts(d))
			if c.published {
				require.NoError(t, err)
				requirePublished(t, d, in)
				return
			}
			requireType(t, err, "Interrupted", true)
			assert.Contains(t, string(heartbeat), `"putRefused":true`)
		})
	}
}

// A worker that shuts down before it has sent anything fails the attempt for the next
// one.
func TestAStoppingWorkerPublishesNothing(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	in := publishInput(d, "orders-0", now())
	in.FirstAttemptToken, in.SettleTime = "", activities.Duration(time.Hour)
	stop := make(chan struct{})
	close(stop)
	_, _, err := publish(t, d, activityAttempt{stop: stop}, in)
	requireType(t, err, "Interrupted", true)
	assert.Zero(t, puts(d))
}

// A worker that shuts down while the outcome of its PUT is unknown says so: the
// workflow runs the activity again.
func TestAWorkerThatIsStoppedWithAnOpenPut(t *testing.T) {
	t.Parallel()
	for _, status := range []int{500, 200} {
		d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
		d.om.Inject(putConfig(simulator.Fault{Status: status, Body: "{}", Apply: simulator.ApplyLate, ApplyAfter: 300 * time.Millisecond}))
		stop := make(chan struct{})
		go func() {
			_ = d.om.Await(t.Context(), func(simulator.Ledger) bool { return puts(d) == 1 })
			close(stop)
		}()
		in := publishInput(d, "orders-0", now())
		in.SettleTime = activities.Duration(2 * time.Second)
		stopped, _, err := publish(t, d, activityAttempt{stop: stop}, in)
		require.NoError(t, err)
		assert.Equal(t, activities.PublishRotationResult{VersionBefore: 41, Ambiguous: true, OutcomeUnknown: true, Attempts: 1}, stopped)

		in.FirstAttemptToken, in.VersionBefore = "", stopped.VersionBefore
		published, _, err := publish(t, d, activityAttempt{}, in)
		require.NoError(t, err)
		requirePublished(t, d, in)
		assert.Equal(t, 1, puts(d))
		assert.False(t, published.AlreadyPublished)
		assert.True(t, published.Ambiguous)
	}
}

// Only observed time counts as settle time: the PUT takes effect when it is over since
// the first reading, but not since the last gap.
func TestTheSettleTimeOfAPublicationIsObserved(t *testing.T) {
	t.Parallel()
	get := simulator.Fault{Method: http.MethodGet, Kind: simulator.KindAutomationConfig}
	slow, odd := get, get
	slow.Delay = 1800 * time.Millisecond
	odd.Status, odd.Body, odd.ContentType = http.StatusOK, "<html>", "text/html"
	for name, c := range map[string]struct {
		gaps    []simulator.Fault // two readings come before the PUT
		applied time.Duration
	}{
		"a response that took long":        {[]simulator.Fault{slow.Skipping(3)}, 3900 * time.Millisecond},
		"responses that are not the API's": {[]simulator.Fault{odd.Skipping(3), odd.Skipping(5), odd.Skipping(7)}, 4300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
			d.om.Inject(putConfig(simulator.Fault{Status: 500, Apply: simulator.ApplyLate, ApplyAfter: c.applied}))
			for _, gap := range c.gaps {
				d.om.Inject(gap)
			}
			in := publishInput(d, "orders-0", now())
			in.SettleTime = activities.Duration(2 * time.Second)
			published, _, err := publish(t, d, activityAttempt{requestTimeout: 10 * time.Second}, in)
			require.NoError(t, err)
			requirePublished(t, d, in)
			assert.True(t, published.Ambiguous)
			assert.Equal(t, 1, puts(d))
		})
	}
}

// Readings that always take long settle nothing: that ends with the retry timeout.
func TestAPublicationThatNeverSettlesIsAFailure(t *testing.T) {
	t.Parallel()
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{})
	d.om.Inject(putConfig(simulator.Fault{Status: 500, Apply: simulator.ApplyNo}))
	d.om.Inject(simulator.Fault{Method: http.MethodGet, Kind: simulator.KindAutomationConfig, Delay: 1200 * time.Millisecond, Skip: 2}.Always())
	go func() { // so that even one that reads for ever ends
		if d.om.Await(t.Context(), func(simulator.Ledger) bool { return len(configRequests(d)) > 12 }) == nil {
			d.om.ClearFaults()
		}
	}()
	in := publishInput(d, "orders-0", now())
	in.SettleTime, in.RetryTimeout = activities.Duration(2*time.Second), activities.Duration(2*time.Second)
	_, _, err := publish(t, d, activityAttempt{requestTimeout: 10 * time.Second}, in)
	appErr := requireType(t, err, activities.ErrorOpsManagerUnavailable, false)
	assert.Contains(t, appErr.Message(), "without a gap")
	assert.Contains(t, appErr.Message(), "unknown")
	assert.True(t, detailsOf(t, appErr).Ambiguous)
	assert.False(t, detailsOf(t, appErr).PutRefused)
	assert.Equal(t, 1, puts(d))
}
