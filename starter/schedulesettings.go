package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
)

const (
	defaultTimeZone = "UTC"
	// unreadable is shown for an input that is no JSON.
	unreadable = "not to be read"
)

// setting is a field of a schedule, in words: what apply sets, and compares.
type setting struct{ name, value string }

// settingsOf are the settings of a schedule, as Temporal gives it or as it is to
// be: the same schedule has the same settings, however it was written.
func settingsOf(s *client.Schedule) []setting {
	settings := []setting{
		{"times", timesWords(s.Spec)},
		{"time zone", zoneOf(s.Spec)},
		{"jitter", plainDuration(s.Spec.Jitter)},
		{"catch-up window", plainDuration(s.Policy.CatchupWindow)},
		{"overlap", strings.ToLower(s.Policy.Overlap.String())},
		{"pause on failure", strconv.FormatBool(s.Policy.PauseOnFailure)},
		{"paused", strconv.FormatBool(s.State.Paused)},
		{"note", s.State.Note},
	}
	return append(settings, actionSettings(workflowOf(s))...)
}

func zoneOf(spec *client.ScheduleSpec) string { return cmp.Or(spec.TimeZoneName, defaultTimeZone) }

// workflowOf is what a schedule starts: Temporal's schedules have no other kind
// of action.
func workflowOf(s *client.Schedule) *client.ScheduleWorkflowAction {
	action, isWorkflow := s.Action.(*client.ScheduleWorkflowAction)
	if !isWorkflow {
		return &client.ScheduleWorkflowAction{}
	}
	return action
}

func workflowType(action *client.ScheduleWorkflowAction) string {
	name, _ := action.Workflow.(string)
	return name
}

func actionSettings(action *client.ScheduleWorkflowAction) []setting {
	settings := []setting{
		{"workflow type", workflowType(action)},
		{"workflow id", action.ID},
		{"task queue", action.TaskQueue},
		{"summary", action.StaticSummary},
	}
	return append(settings, inputSettings(inputAsJSON(action.Args))...)
}

// inputAsJSON is a workflow's input as JSON, nil if there is none or it is none that
// can be read; several arguments, which are a mistake, are a list.
func inputAsJSON(args []any) json.RawMessage {
	switch len(args) {
	case 0:
		return nil
	case 1:
		return argument(args[0])
	}
	all := make([]json.RawMessage, len(args))
	for i, arg := range args {
		all[i] = argument(arg)
	}
	list, err := json.Marshal(all)
	if err != nil {
		return nil
	}
	return list
}

// argument is JSON of what Temporal gives back, or of what is to be sent.
func argument(arg any) json.RawMessage {
	payload, isPayload := arg.(*commonpb.Payload)
	if !isPayload {
		text, err := json.Marshal(arg)
		must(err)
		return text
	}
	var text json.RawMessage
	switch err := converter.GetDefaultDataConverter().FromPayload(payload, &text); {
	case err != nil:
		return nil
	case text == nil:
		return json.RawMessage("null")
	}
	return text
}

// inputSettings has a setting for each field, those of an object in an object
// with a dot.
func inputSettings(input json.RawMessage) []setting {
	fields := map[string]string{}
	flatten("input", input, fields)
	var settings []setting
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		settings = append(settings, setting{name, fields[name]})
	}
	return settings
}

func flatten(name string, value json.RawMessage, into map[string]string) {
	var object map[string]json.RawMessage
	if json.Unmarshal(value, &object) == nil && len(object) > 0 {
		for field, inner := range object {
			flatten(name+"."+field, inner, into)
		}
		return
	}
	var compact bytes.Buffer
	if json.Compact(&compact, value) != nil {
		into[name] = unreadable
		return
	}
	into[name] = compact.String()
}

// change is a setting that is to be another one; empty = there is none.
type change struct{ name, from, to string }

// changesBetween lists what differs, in the order of the settings.
func changesBetween(from, to []setting) (changes []change) {
	before, after := byName(from), byName(to)
	for _, s := range to {
		if s.value != before[s.name] {
			changes = append(changes, change{s.name, before[s.name], s.value})
		}
	}
	for _, s := range from {
		if _, stays := after[s.name]; !stays {
			changes = append(changes, change{s.name, s.value, ""})
		}
	}
	return changes
}

func byName(settings []setting) map[string]string {
	named := make(map[string]string, len(settings))
	for _, s := range settings {
		named[s.name] = s.value
	}
	return named
}

// changeLines shows changes; of a schedule that is new, just its settings.
func changeLines(changes []change, isNew bool) (lines []string) {
	longest := 0
	for _, c := range changes {
		longest = max(longest, len(c.name))
	}
	for _, c := range changes {
		text := orNone(c.to)
		if !isNew {
			text = orNone(c.from) + " -> " + text
		}
		lines = append(lines, fmt.Sprintf("  %-*s  %s", longest, c.name, clean(text)))
	}
	return lines
}

func orNone(value string) string { return cmp.Or(value, "(none)") }
