package main

import (
	"time"

	"keyturn/workflows"
)

// statusView is the status of a rotation of any kind: its progress or its result.
type statusView interface {
	// value is the progress as the workflow has it: a pointer, to decode it into and
	// to encode it.
	value() any
	// state is the phase, and what the rotation waits for.
	state() (phase workflows.Phase, waitingFor string)
	// outcome is the result's outcome, and its counts as text.
	outcome() (outcome, counts string)
	// markEnded makes it the status of a rotation that has ended; failure is
	// empty if it succeeded.
	markEnded(failure string)
	// result is the workflow's result so far.
	result() any
	// warning says what is missing in a rotation that has not failed, as what the
	// command that continues it is for; empty = nothing.
	warning() string
	// ofRun names the run in a report.
	ofRun(workflowID, runID string)
	// isPlan reports whether it was a dry run.
	isPlan() bool
	// isUnfinished reports whether a rotation has ended with something rotated,
	// or tried, and something left.
	isUnfinished() bool

	table(layout) string
	csv() string
	markdown() string
	page() htmlPage

	// summary has at most two lines.
	summary() []string
	// statusLine is a name, a bar, the phase and the counts.
	statusLine(l layout, now time.Time) statusLine
	// rows is a table of at most this many rows.
	rows(l layout, now time.Time, room int) []string
	// changes lists what is new since an earlier status; nil = all is new.
	changes(since statusView) []string
	// nextCommands are the commands to continue with, if the rotation waits for
	// a person.
	nextCommands(a *app) []string
}

// notRecorded follows the outcome of a rotation that waits for its ledger.
const notRecorded = ", not recorded yet"

// outcomeText also covers a rotation without an outcome.
func outcomeText(outcome workflows.Outcome, phase workflows.Phase) string {
	switch {
	case outcome != "" && phase == workflows.PhaseRecording:
		return string(outcome) + notRecorded
	case outcome != "":
		return string(outcome)
	case phase == workflows.PhaseDone:
		return "none"
	default:
		return "none yet: " + phaseName(phase)
	}
}

// phaseName is a phase in words, for people.
func phaseName(phase workflows.Phase) string {
	switch phase {
	case workflows.PhaseAwaitingApproval:
		return "waiting for approval"
	case workflows.PhaseRecording:
		return "waiting for the ledger"
	default:
		return string(phase)
	}
}

// phaseWords say what a rotation does, or how it has ended.
func phaseWords(phase workflows.Phase, outcome workflows.Outcome) string {
	switch {
	case phase == workflows.PhaseRecording && outcome != "":
		return "has ended (" + string(outcome) + notRecorded + ")"
	case phase != workflows.PhaseDone:
		return "is " + phaseName(phase)
	case outcome == "":
		return "has ended"
	default:
		return "has ended (" + string(outcome) + ")"
	}
}

func (a *app) resumeLine() string {
	return a.commandLine(workflows.ResumeUpdate, "--by", a.operatorOr("YOU"))
}

func (a *app) abortLine() string {
	return a.commandLine(workflows.AbortUpdate, "--by", a.operatorOr("YOU"), "--reason", "WHY")
}

// operatorOr is the user, or a placeholder if the user is not known.
func (a *app) operatorOr(placeholder string) string {
	if a.user == "" {
		return placeholder
	}
	return a.user
}
