package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// comparison is of all targets' records with the simulated Ops Manager's ledger.
type comparison struct {
	targets  []targetComparison
	puts     int // of keys, whatever became of them
	problems []string
}

// targetComparison is of one target.
type targetComparison struct {
	name     string
	puts     int
	rotated  simulator.Rotation // as the ledger has it; zero if no PUT was applied
	problems []string
}

// compare looks at the records from the ledger's side, so that a target without
// a record is found, too; records are of one rotation of each target, and the
// ledger has nothing else.
func compare(summary simulator.Summary, ledger simulator.Ledger, records []workflows.TargetRecord) comparison {
	recorded := map[string][]workflows.TargetRecord{}
	for _, record := range records {
		recorded[record.ClusterID] = append(recorded[record.ClusterID], record)
	}
	c := comparison{puts: len(ledger.Select(isPutOfKey))}
	for _, target := range summary.Targets {
		one := compareTarget(target, ledger.Count(http.MethodPut, target.ID), recorded[target.ID])
		c.targets = append(c.targets, one)
		for _, problem := range one.problems {
			c.problems = append(c.problems, one.name+": "+problem)
		}
		delete(recorded, target.ID)
	}
	for _, id := range slices.Sorted(maps.Keys(recorded)) {
		c.problems = append(c.problems, fmt.Sprintf("%s (%s): Ops Manager has no such target", recorded[id][0].Name, id))
	}
	if c.puts != len(c.targets) {
		c.problems = append(c.problems, fmt.Sprintf("the ledger has %d PUTs for %d targets", c.puts, len(c.targets)))
	}
	return c
}

func isPutOfKey(r simulator.Request) bool {
	return r.Method == http.MethodPut && r.Kind == simulator.KindKey && r.Authenticated
}

func compareTarget(target simulator.TargetSummary, puts int, records []workflows.TargetRecord) targetComparison {
	c := targetComparison{name: target.Name, puts: puts}
	if puts != 1 {
		c.differ("the ledger has %d PUTs, not one", puts)
	}
	if len(target.Rotations) == 1 {
		c.rotated = target.Rotations[0]
	} else {
		c.differ("%d PUTs were applied, not one", len(target.Rotations))
	}
	if target.Key != c.rotated.NewKey {
		c.differ("its key is %q now, and the PUT has made %q", target.Key, c.rotated.NewKey)
	}
	if len(records) != 1 {
		c.differ("it has %d records, not one", len(records))
		return c
	}
	c.compareRecord(records[0])
	return c
}

func (c *targetComparison) compareRecord(record workflows.TargetRecord) {
	if record.Status != workflows.StatusVerified {
		c.differ("its record is %s, not verified", record.Status)
	}
	c.compareKey("previous", record.PreviousKeyUUID, c.rotated.PreviousKey)
	c.compareKey("new", record.NewKeyUUID, c.rotated.NewKey)
}

func (c *targetComparison) compareKey(which, recorded, inLedger string) {
	if recorded != inLedger {
		c.differ("its %s key is recorded as %q, and is %q in the ledger", which, recorded, inLedger)
	}
}

func (c *targetComparison) differ(format string, values ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, values...))
}

// String is the comparison's result in one line, or one for each disagreement.
func (c comparison) String() string {
	if len(c.problems) == 0 {
		return fmt.Sprintf("records and ledger agree: %d targets, %d PUTs", len(c.targets), c.puts)
	}
	return "records and ledger DISAGREE:\n  " + strings.Join(c.problems, "\n  ")
}

func (c comparison) err() error {
	if len(c.problems) == 0 {
		return nil
	}
	return fmt.Errorf("records and ledger disagree in %d points", len(c.problems))
}

// table shows the ledger's side, as the starter's own shows that of the records.
// It has two lines a target, so that it fits on a screen of 80 characters.
func (c comparison) table() string {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	t.Style().Options.SeparateRows = true
	t.AppendHeader(table.Row{"Ops Manager's\nledger", "Previous key\nNew key", "PUTs", "Record"})
	for _, target := range c.targets {
		verdict := "agrees"
		if len(target.problems) > 0 {
			verdict = "DISAGREES"
		}
		t.AppendRow(table.Row{target.name, target.rotated.PreviousKey + "\n" + target.rotated.NewKey, target.puts, verdict})
	}
	return t.Render()
}
