package main

import (
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// verification is the result of verifying the records of all targets against the
// ledger of the simulated Ops Manager.
type verification struct {
	targets []targetVerification
	// counted names what the ledger counts of a target.
	counted string
	// matching says what was found where there are no problems.
	matching string
	problems []string
}

// targetVerification is the result for one target.
type targetVerification struct {
	name                string
	count               int    // see verification.counted
	previousKey, newKey string // from the ledger; empty unless there is exactly one rotation
	problems            []string
}

func (v *targetVerification) add(format string, values ...any) {
	v.problems = append(v.problems, fmt.Sprintf(format, values...))
}

// addTarget adds the result for a target.
func (v *verification) addTarget(one targetVerification) {
	v.targets = append(v.targets, one)
	for _, problem := range one.problems {
		v.add("%s: %s", one.name, problem)
	}
}

func (v *verification) add(format string, values ...any) {
	v.problems = append(v.problems, fmt.Sprintf(format, values...))
}

// String is the result in one line, or one line for each problem.
func (v verification) String() string {
	if len(v.problems) == 0 {
		return "records match the ledger: " + v.matching
	}
	return "records do NOT match the ledger:\n  " + strings.Join(v.problems, "\n  ")
}

func (v verification) err() error {
	if len(v.problems) == 0 {
		return nil
	}
	return fmt.Errorf("records and ledger differ in %d points", len(v.problems))
}

// table renders the ledger, in the same format in which the command line renders
// the records. Two lines for each target fit on a terminal of 80 columns.
func (v verification) table() string {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	t.Style().Options.SeparateRows = true
	t.AppendHeader(table.Row{"Ops Manager's\nledger", "Previous key\nNew key", v.counted, "Record"})
	for _, target := range v.targets {
		result := "matches"
		if len(target.problems) > 0 {
			result = "DIFFERS"
		}
		t.AppendRow(table.Row{target.name, target.previousKey + "\n" + target.newKey, target.count, result})
	}
	return t.Render()
}
