package main

import (
	"net/http"
	"strings"
	"testing"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

func TestRecordsThatAgree(t *testing.T) {
	summary, ledger, records := rotatedTwo()
	found := compare(summary, ledger, records)
	if found.err() != nil || found.String() != "records and ledger agree: 2 targets, 2 PUTs" {
		t.Errorf("got %v, %q", found.err(), found)
	}
	for _, want := range []string{"orders-0", "old-0", "new-0", "orders-config", "agrees"} {
		if !strings.Contains(found.table(), want) {
			t.Errorf("the table lacks %s:\n%s", want, found.table())
		}
	}
}

func TestEveryDisagreementIsFound(t *testing.T) {
	type rotation struct {
		summary *simulator.Summary
		ledger  *simulator.Ledger
		records []workflows.TargetRecord
	}
	for name, test := range map[string]struct {
		spoil func(*rotation)
		want  string
	}{
		"another new key":      {func(r *rotation) { r.records[0].NewKeyUUID = "other" }, `orders-0: its new key is recorded as "other", and is "new-0" in the ledger`},
		"another previous key": {func(r *rotation) { r.records[1].PreviousKeyUUID = "" }, `orders-config: its previous key is recorded as "", and is "old-1" in the ledger`},
		"not verified":         {func(r *rotation) { r.records[0].Status = workflows.StatusRotated }, "orders-0: its record is rotated, not verified"},
		"no record":            {func(r *rotation) { r.records = r.records[:1] }, "orders-config: it has 0 records, not one"},
		"two records":          {func(r *rotation) { r.records = append(r.records, r.records[0]) }, "orders-0: it has 2 records, not one"},
		"a stranger":           {func(r *rotation) { r.records = append(r.records, recordOf("elsewhere", 7)) }, "elsewhere (id-7): Ops Manager has no such target"},
		"no PUT applied":       {func(r *rotation) { r.summary.Targets[0].Rotations = nil }, "orders-0: 0 PUTs were applied, not one"},
		"a PUT too many":       {func(r *rotation) { r.ledger.Requests = append(r.ledger.Requests, putOf(0)) }, "orders-0: the ledger has 2 PUTs, not one"},
		"a PUT on the parent":  {func(r *rotation) { r.ledger.Requests = append(r.ledger.Requests, putOf(8)) }, "the ledger has 3 PUTs for 2 targets"},
		"changed since":        {func(r *rotation) { r.summary.Targets[0].Key = "newer" }, `orders-0: its key is "newer" now, and the PUT has made "new-0"`},
	} {
		summary, ledger, records := rotatedTwo()
		spoiled := rotation{&summary, &ledger, records}
		test.spoil(&spoiled)
		found := compare(summary, ledger, spoiled.records)
		if found.err() == nil || !strings.Contains(found.String(), "DISAGREE") || !strings.Contains(found.String(), test.want) {
			t.Errorf("%s: got %v and\n%s\nwant %q", name, found.err(), found, test.want)
		}
	}
}

// rotatedTwo is a rotation of two targets as it should be.
func rotatedTwo() (simulator.Summary, simulator.Ledger, []workflows.TargetRecord) {
	summary := simulator.Summary{Targets: []simulator.TargetSummary{targetOf("orders-0", 0), targetOf("orders-config", 1)}}
	ledger := simulator.Ledger{Requests: []simulator.Request{
		{Method: http.MethodGet, Kind: simulator.KindKey, ClusterID: "id-0", Authenticated: true},
		{Method: http.MethodPut, Kind: simulator.KindKey, ClusterID: "id-0"}, // the challenge
		putOf(0), putOf(1),
	}}
	return summary, ledger, []workflows.TargetRecord{recordOf("orders-0", 0), recordOf("orders-config", 1)}
}

func targetOf(name string, n int) simulator.TargetSummary {
	rotated := simulator.Rotation{ClusterID: numbered("id", n), PreviousKey: numbered("old", n), NewKey: numbered("new", n)}
	return simulator.TargetSummary{ID: rotated.ClusterID, Name: name, Key: rotated.NewKey, Rotations: []simulator.Rotation{rotated}}
}

func putOf(n int) simulator.Request {
	return simulator.Request{Method: http.MethodPut, Kind: simulator.KindKey, ClusterID: numbered("id", n), Authenticated: true}
}

func recordOf(name string, n int) workflows.TargetRecord {
	return workflows.TargetRecord{
		Target: activities.Target{ClusterID: numbered("id", n), Name: name}, Status: workflows.StatusVerified,
		PreviousKeyUUID: numbered("old", n), NewKeyUUID: numbered("new", n),
	}
}

func numbered(what string, n int) string { return what + "-" + string(rune('0'+n)) }
