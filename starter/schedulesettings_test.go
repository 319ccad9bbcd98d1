package main

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
)

// wantedBy is what the flags of apply ask for, when dana gives them.
func wantedBy(t *testing.T, args ...string) wantedSchedule {
	t.Helper()
	a, _, _ := newTestApp()
	f, command := &applyFlags{}, &cobra.Command{}
	f.addFlags(command, a)
	if err := command.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	if err := f.check(command.Flags()); err != nil {
		t.Fatal(err)
	}
	return f.wanted(a.rotation, command.Flags())
}

// existingSchedule is as Temporal gives it, with payloads for arguments.
func existingSchedule(t *testing.T, input string) *client.Schedule {
	t.Helper()
	payload, err := converter.GetDefaultDataConverter().ToPayload(json.RawMessage(input))
	if err != nil {
		t.Fatal(err)
	}
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

func changesOf(existing *client.Schedule, wanted wantedSchedule) []change {
	return changesBetween(settingsOf(existing), settingsOf(wanted.over(existing)))
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
			if changes := changesOf(existing, wantedBy(t, flags...)); len(changes) > 0 {
				t.Errorf("%v: %+v", flags, changes)
			}
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
	want := []change{
		{"times", "at 04:00 on day 1 of January, April, July, October (cron 0 4 1 */3 *)", "every 2160h (90 days), offset 2h"},
		{"time zone", "UTC", "Europe/Berlin"},
		{"jitter", "0s", "1h"},
		{"catch-up window", "8760h", "2h"},
		{"overlap", "bufferall", "skip"},
		{"pause on failure", "false", "true"},
		{"paused", "false", "true"},
		{"note", "", "not yet"},
		{"workflow id", "mine", "scheduled-rotate-cluster:default:" + testProject + ":" + testCluster},
		{"task queue", "elsewhere", "key-rotation"},
		{"summary", "", "Rotate the KMIP master key of cluster " + testCluster + " (CHG2)"},
		{"input.change.reason", "", `"why"`},
		{"input.change.requestedBy", `"erin"`, `"dana"`},
		{"input.change.ticket", `"CHG1"`, `"CHG2"`},
		{"input.concurrency", "2", "8"},
		{"input.settleTime", "", `"1m0s"`},
		{"input.completed", "[]", ""},
	}
	if got := changesOf(existing, wanted); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestWhatNoFlagSaysStaysAsItIs(t *testing.T) {
	existing := existingSchedule(t, plainInput)
	existing.State = &client.ScheduleState{LimitedActions: true, RemainingActions: 3}
	got := wantedBy(t, "--cron", "0 5 1 */3 *").over(existing)
	if len(got.Spec.Skip) != 1 || !got.State.LimitedActions || got.State.RemainingActions != 3 || workflowOf(got).WorkflowRunTimeout != time.Hour {
		t.Errorf("got %+v, %+v, %+v", got.Spec, got.State, workflowOf(got))
	}
	if calendarOf(existing.Spec.Calendars[0]).cron() != "0 4 1 */3 *" {
		t.Errorf("the existing schedule was changed: %+v", existing.Spec)
	}
}

func TestApplyKeepsAPauseAndItsReason(t *testing.T) {
	for name, test := range map[string]struct {
		paused bool
		flags  []string
		want   client.ScheduleState
	}{
		"nothing said":               {true, nil, client.ScheduleState{Paused: true, Note: "it has failed"}},
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
		if got := wantedBy(t, append(test.flags, plainFlags...)...).over(existing).State; *got != test.want {
			t.Errorf("%s: got %+v, want %+v", name, *got, test.want)
		}
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
		if got := requesterOf(wantedBy(t, test.flags...).over(existing)); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestInputsThatAreNoObjects(t *testing.T) {
	for name, test := range map[string]struct {
		args []any
		want []setting
	}{
		"none":   {nil, []setting{{"input", "not to be read"}}},
		"null":   {[]any{nil}, []setting{{"input", "null"}}},
		"text":   {[]any{"x"}, []setting{{"input", `"x"`}}},
		"empty":  {[]any{map[string]any{}}, []setting{{"input", "{}"}}},
		"two":    {[]any{map[string]any{"a": 1}, 2}, []setting{{"input", `[{"a":1},2]`}}},
		"nested": {[]any{map[string]any{"a": map[string]any{"b": []int{1, 2}, "c": nil}}}, []setting{{"input.a.b", "[1,2]"}, {"input.a.c", "null"}}},
	} {
		payloads, err := converter.GetDefaultDataConverter().ToPayloads(test.args...)
		if err != nil {
			t.Fatal(err)
		}
		var received []any
		for _, payload := range payloads.GetPayloads() {
			received = append(received, payload)
		}
		for _, args := range [][]any{test.args, received} {
			if got := inputSettings(inputAsJSON(args)); !reflect.DeepEqual(got, test.want) {
				t.Errorf("%s: got %+v, want %+v", name, got, test.want)
			}
		}
	}
}

func TestChangesAreShownInColumns(t *testing.T) {
	changes := []change{{"times", "a", "b\x1b[31m\nc"}, {"note", "", "n"}, {"input.x", "1", ""}}
	want := []string{"  times    a -> b c", "  note     (none) -> n", "  input.x  1 -> (none)"}
	if got := changeLines(changes, false); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := changeLines(changes[:1], true); !reflect.DeepEqual(got, []string{"  times  b c"}) {
		t.Errorf("got %q", got)
	}
}
