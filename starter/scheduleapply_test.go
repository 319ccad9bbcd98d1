package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"keyturn/workflows"
)

// wantedBy is what the flags of apply ask for, when dana gives them.
func wantedBy(t *testing.T, args ...string) func(existing *client.Schedule) *client.Schedule {
	t.Helper()
	a, _, _ := newTestApp()
	name, f, command := a.rotation, &applyFlags{}, &cobra.Command{}
	f.addFlags(a, command)
	require.NoError(t, command.ParseFlags(args))
	require.NoError(t, f.check(name))
	return func(existing *client.Schedule) *client.Schedule { return f.merge(existing, name) }
}

// existingSchedule is as Temporal gives it, with payloads for arguments.
func existingSchedule(t *testing.T, input string) *client.Schedule {
	t.Helper()
	payload, err := converter.GetDefaultDataConverter().ToPayload(json.RawMessage(input))
	require.NoError(t, err)
	one := func(value int) []client.ScheduleRange {
		return []client.ScheduleRange{{Start: value, End: value, Step: 1}}
	}
	all := func(from, to int) []client.ScheduleRange {
		return []client.ScheduleRange{{Start: from, End: to, Step: 1}}
	}
	return &client.Schedule{
		Spec: &client.ScheduleSpec{
			Calendars: []client.ScheduleCalendarSpec{{
				Second: one(0), Minute: one(0), Hour: one(4), DayOfMonth: one(1), Month: []client.ScheduleRange{{Start: 1, End: 12, Step: 3}}, DayOfWeek: all(0, 6),
			}},
			Skip: []client.ScheduleCalendarSpec{{Year: one(2030)}},
		},
		Policy: &client.SchedulePolicies{Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP, CatchupWindow: time.Hour, PauseOnFailure: true},
		State:  &client.ScheduleState{},
		Action: &client.ScheduleWorkflowAction{
			ID:       "scheduled-rotate-cluster:default:" + testProject + ":" + testCluster,
			Workflow: "RotateCluster", TaskQueue: "key-rotation", Args: []any{payload},
			StaticSummary: "Rotate the KMIP master key of cluster " + testCluster, WorkflowRunTimeout: time.Hour,
		},
	}
}

const plainInput = `{"projectId":"` + testProject + `","clusterId":"` + testCluster + `","change":{"requestedBy":"dana"}}`

var plainFlags = []string{"--cron", "0 4 1 */3 *"}

func changesOf(existing *client.Schedule, merge func(*client.Schedule) *client.Schedule) []string {
	return changedLines(yamlText(settingsOf(existing)), yamlText(settingsOf(merge(existing))))
}

func TestWhatIsAlreadySoIsNoChange(t *testing.T) {
	for _, existing := range []*client.Schedule{
		existingSchedule(t, plainInput),
		existingSchedule(t, `{ "change": {"requestedBy": "dana"}, "clusterId": "`+testCluster+`", "projectId":"`+testProject+`"}`),
		existingSchedule(t, `{"projectId":"`+testProject+`","clusterId":"`+testCluster+`","change":{"requestedBy":"erin"}}`),
	} {
		for _, flags := range [][]string{
			plainFlags, {"--cron", "0 4 1 1,APR,7,10 *"}, {"--cron", "0 4 1 */3 *", "--time-zone", "UTC", "--catch-up", "60m", "--jitter", "0s", "--paused=false"},
		} {
			assert.Empty(t, changesOf(existing, wantedBy(t, flags...)), "%v", flags)
		}
	}
}

func TestEveryChangeIsNamed(t *testing.T) {
	existing := existingSchedule(t, `{"projectId":"`+testProject+`","clusterId":"`+testCluster+`","completed":[],"concurrency":2,"change":{"requestedBy":"erin","ticket":"CHG1"}}`)
	existing.Policy = &client.SchedulePolicies{Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_BUFFER_ALL, CatchupWindow: 8760 * time.Hour}
	action := workflowOf(existing)
	action.ID, action.TaskQueue, action.StaticSummary = "mine", "elsewhere", ""
	wanted := wantedBy(t, "--every", "2160h", "--offset", "2h", "--time-zone", "Europe/Berlin", "--jitter", "1h", "--catch-up", "2h",
		"--paused", "--note", "not yet", "--concurrency", "8", "--settle-time", "1m", "--ticket", "CHG2", "--reason", "why")
	want := []string{
		"- catchUpWindow: 365d", "+ catchUpWindow: 2h",
		"-         requestedBy: erin", "-         ticket: CHG1", "+         reason: why", "+         requestedBy: dana", "+         ticket: CHG2",
		"-     completed: []", "-     concurrency: 2", "+     concurrency: 8",
		"+     settleTime: 1m0s",
		"- jitter: 0s", `- note: ""`, "- overlap: bufferall", "- pauseOnFailure: false", "- paused: false", `- summary: ""`, "- taskQueue: elsewhere",
		"- timeZone: UTC", "- times: at 04:00 on day 1, in January, April, July, October (cron 0 4 1 */3 *), but not never", "- workflowId: mine",
		"+ jitter: 1h", "+ note: not yet", "+ overlap: skip", "+ pauseOnFailure: true", "+ paused: true",
		"+ summary: Rotate the KMIP master key of cluster " + testCluster + " (CHG2)", "+ taskQueue: key-rotation",
		"+ timeZone: Europe/Berlin", "+ times: every 90d, offset 2h, but not never", "+ workflowId: scheduled-rotate-cluster:default:" + testProject + ":" + testCluster,
	}
	assert.ElementsMatch(t, want, changesOf(existing, wanted))
}

func TestWhatNoFlagSaysStaysAsItIs(t *testing.T) {
	existing := existingSchedule(t, plainInput)
	existing.State = &client.ScheduleState{LimitedActions: true, RemainingActions: 3}
	got := wantedBy(t, "--cron", "0 5 1 */3 *")(existing)
	require.Len(t, got.Spec.Skip, 1)
	assert.True(t, got.State.LimitedActions)
	assert.Equal(t, 3, got.State.RemainingActions)
	assert.Equal(t, time.Hour, workflowOf(got).WorkflowRunTimeout)
	assert.Equal(t, "0 4 1 */3 *", calendarOf(existing.Spec.Calendars[0]).cron(), "the existing schedule was changed: %+v", existing.Spec)
}

func TestApplyKeepsAPauseAndItsReason(t *testing.T) {
	for name, test := range map[string]struct {
		paused bool
		flags  []string
		want   client.ScheduleState
	}{
		"no flag":                    {true, nil, client.ScheduleState{Paused: true, Note: "it has failed"}},
		"a note":                     {true, []string{"--note", "audited"}, client.ScheduleState{Paused: true, Note: "it has failed"}},
		"a pause that is there":      {true, []string{"--paused"}, client.ScheduleState{Paused: true, Note: "it has failed"}},
		"a pause with a new note":    {true, []string{"--paused", "--note", "audited"}, client.ScheduleState{Paused: true, Note: "audited"}},
		"the pause's end":            {true, []string{"--paused=false"}, client.ScheduleState{}},
		"the pause's end, with note": {true, []string{"--paused=false", "--note", "audited"}, client.ScheduleState{Note: "audited"}},
		"a note on an active one":    {false, []string{"--note", "audited"}, client.ScheduleState{Note: "audited"}},
		"no note on an active one":   {false, nil, client.ScheduleState{Note: "it has failed"}},
		"a new pause":                {false, []string{"--paused"}, client.ScheduleState{Paused: true}},
	} {
		existing := existingSchedule(t, plainInput)
		existing.State = &client.ScheduleState{Paused: test.paused, Note: "it has failed"}
		assert.Equal(t, test.want, *wantedBy(t, append(test.flags, plainFlags...)...)(existing).State, name)
	}
}

func TestOnlyWhoeverChangesAScheduleBecomesItsRequester(t *testing.T) {
	existing := existingSchedule(t, `{"projectId":"`+testProject+`","clusterId":"`+testCluster+`","change":{"requestedBy":"erin"}}`)
	for name, test := range map[string]struct {
		flags []string
		want  string
	}{
		"confirmed":           {plainFlags, "erin"},
		"changed":             {[]string{"--cron", "0 5 1 */3 *"}, "dana"},
		"named on the way":    {append([]string{"--requested-by", "frank"}, plainFlags...), "frank"},
		"named by themselves": {append([]string{"--requested-by", "dana"}, plainFlags...), "dana"},
	} {
		assert.Equal(t, test.want, requesterOf(t, wantedBy(t, test.flags...)(existing)), name)
	}
}

func requesterOf(t *testing.T, s *client.Schedule) string {
	t.Helper()
	var input workflows.RotateClusterInput
	require.NoError(t, json.Unmarshal(settingsOf(s).Input, &input))
	return input.Change.RequestedBy
}

func TestInputsThatAreNoObjects(t *testing.T) {
	for name, test := range map[string]struct {
		args []any
		want string
	}{
		"none":   {nil, ""},
		"null":   {[]any{nil}, ""},
		"text":   {[]any{"x"}, `"x"`},
		"binary": {[]any{[]byte("{")}, ""},
		"empty":  {[]any{map[string]any{}}, "{}"},
		"two":    {[]any{map[string]any{"a": 1}, 2}, `[{"a":1},2]`},
	} {
		payloads, err := converter.GetDefaultDataConverter().ToPayloads(test.args...)
		require.NoError(t, err)
		var received []any
		for _, payload := range payloads.GetPayloads() {
			received = append(received, payload)
		}
		assert.Equal(t, test.want, string(inputOf(received)), name)
	}
}

func TestChangesAreShownLineByLine(t *testing.T) {
	assert.Equal(t, []string{"- b: 1", "+ b: 2"}, changedLines("a: x\nb: 1\nc: y\n", "a: x\nb: 2\nc: y\n"))
	assert.Equal(t, []string{"+ a: x"}, changedLines("", "a: x\n"))
	assert.Empty(t, changedLines("a: x\n", "a: x\n"))
}

func TestYAMLHasNothingThatATerminalActsOn(t *testing.T) {
	assert.Equal(t, "note: \"a\\e[31m\"\n", yamlText(map[string]string{"note": "a\x1b[31m\u202e"}))
}
