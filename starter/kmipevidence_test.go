package main

import (
	"encoding/csv"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/workflows"
)

var updateGolden = flag.Bool("update", false, "rewrite the golden files in testdata")

// witnessedResult is partialResult with what a KMIP server says.
func witnessedResult() workflows.RotateClusterResult {
	result := partialResult()
	result.Targets[0].KMIP = &workflows.KeyEvidence{
		Outcome: workflows.EvidenceWitnessed, State: "Active", InitialDate: at(0), ActivationDate: at(0), Algorithm: "AES", Length: 256, Name: "backup", AskedAt: *at(2),
	}
	result.Targets[1].KMIP = &workflows.KeyEvidence{Outcome: workflows.EvidenceForbidden, AskedAt: *at(3)}
	result.Targets[2].KMIP = &workflows.KeyEvidence{Outcome: workflows.EvidenceAbsent, State: "Destroyed\x1b[2J", AskedAt: *at(5)}
	result.Actions = []workflows.Action{{At: *at(50), By: "erin", Action: "skip", Targets: []string{"=cmd|' /C calc'!A0"}, Reason: "retired"}}
	return result
}

func TestReportsShowKMIPEvidence(t *testing.T) {
	status := endedStatus(witnessedResult(), "")
	table := status.table(layout{})
	for _, want := range []string{
		"KMIP server   1 witnessed, 1 absent, 1 forbidden of 3 new keys\n",
		"│ KMIP server          │", "│ Key made             │",
		"│ witnessed, Active    │\n", "│ 2026-03-01T12:00:00Z │\n", "│ absent, Destroyed    │\n", "│ not asked            │\n", "│ -                    │\n",
		"PUT outcome was unknown and resolved by reading the key; the KMIP server does not have the new key\n",
	} {
		assert.Contains(t, table, want)
	}
	markdown := status.markdown()
	assert.Contains(t, markdown, "| Attempts | KMIP server | Key made |\n")
	assert.Contains(t, markdown, "| 1 | witnessed, Active | 2026-03-01T12:00:00Z |\n")
	assert.Contains(t, markdown, "| 1 | forbidden |  |\n")
	rows, err := csv.NewReader(strings.NewReader(status.csv())).ReadAll()
	require.NoError(t, err)
	last := func(row []string) []string { return row[len(row)-8 : len(row)-4] }
	assert.Equal(t, []string{"witnessed", "Active", "2026-03-01T12:00:00Z", "2026-03-01T12:00:02Z"}, last(rows[1]))
	assert.Equal(t, []string{"forbidden", "", "", "2026-03-01T12:00:03Z"}, last(rows[2]))
	assert.Equal(t, []string{"", "", "", ""}, last(rows[4]))
	for _, text := range []string{table, markdown} {
		assert.NotContains(t, text, "\x1b")
	}
}

func TestListedKeysShowKMIPEvidence(t *testing.T) {
	made := began
	v := &keyView{now: began, Complete: true, Keys: []workflows.KeyRecord{
		{KeyUUID: "1", Verdict: workflows.VerdictNeeded, KMIP: &workflows.KeyEvidence{Outcome: workflows.EvidenceWitnessed, State: "Deactivated", InitialDate: &made, AskedAt: began}},
		{KeyUUID: "2", Verdict: workflows.VerdictUnknown},
	}}
	assert.Contains(t, v.table(layout{}), "│ witnessed, Deactivated │")
	assert.Contains(t, v.markdown(), "| witnessed, Deactivated, made 2026-03-01T12:00:00Z |")
	rows, err := csv.NewReader(strings.NewReader(v.csv())).ReadAll()
	require.NoError(t, err)
	last := func(row []string) []string { return row[len(row)-5:] }
	assert.Equal(t, []string{"kmipOutcome", "kmipState", "kmipInitialDate", "kmipAskedAt", "complete"}, last(rows[0]))
	assert.Equal(t, []string{"witnessed", "Deactivated", "2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z", "true"}, last(rows[1]))
	assert.Equal(t, []string{"", "", "", "", "true"}, last(rows[2]))
	v.Keys = v.Keys[1:]
	assert.NotContains(t, v.table(layout{}), "KMIP server", "nothing was asked")
}

func htmlOf(t *testing.T, status statusView) string {
	t.Helper()
	var page strings.Builder
	require.NoError(t, writeHTML(&page, status.page(), *at(100)))
	return regexp.MustCompile(`keyturn [^ ]+ at`).ReplaceAllString(page.String(), "keyturn VERSION at")
}

// What the pages look like. To see changes: go test ./starter -run HTML -update,
// and open the files in a browser.
func TestHTMLReports(t *testing.T) {
	fleet := &fleetStatus{}
	fleet.Connection, fleet.Outcome, fleet.StartedAt, fleet.FinishedAt = "default", workflows.OutcomePartial, began, at(3600)
	fleet.Change = workflows.Change{Ticket: "CHG0031337", RequestedBy: "dana"}
	fleet.Counts = workflows.FleetCounts{Clusters: 4, Rotated: 2, Busy: 1, Failed: 1}
	fleet.Failures, fleet.TargetsVerified = []workflows.ClusterFailure{failureOf("07", "<script>alert(1)</script>")}, 9
	fleet.LeftOut = []workflows.ClusterLeftOut{{ClusterRef: refOf("08", "audit"), Reason: workflows.LeftOutBusy}}
	fleet.markEnded("PartialFailure: 1 of 4 clusters failed")
	planned := progressOf(workflows.PhaseDone, target("00", "orders-0", workflows.StatusPlanned)).RotateClusterResult
	planned.Outcome = workflows.OutcomePlanned
	cluster := workflows.RotateClusterID("default", testProject, testCluster)
	workflowIDs := map[string]string{
		"cluster": cluster, "plan": cluster, "fleet": workflows.RotateFleetID("default"), "projects": workflows.RotateDeploymentFleetID("default"),
		"deployment": workflows.RotateDeploymentID("default", testProject),
	}
	for name, status := range map[string]statusView{
		"cluster":    endedStatus(witnessedResult(), "PartialFailure: 3 of 5 targets verified"),
		"plan":       endedStatus(planned, ""),
		"fleet":      fleet,
		"projects":   fleetOfDeployments(),
		"deployment": endedDeployment(unprovenDeployment()),
	} {
		t.Run(name, func(t *testing.T) {
			status.ofRun(workflowIDs[name], "")
			got := htmlOf(t, status)
			file := filepath.Join("testdata", "report-"+name+".html")
			if *updateGolden {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o600))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			assert.Equal(t, string(want), got)
			for _, outside := range []string{"http:", "https:", "//", "<script", "<img", "<link", "src=", "href=", "url(h", "url('", "url(\"", "url(/", "@import", "\x1b", "\u202e"} {
				assert.NotContains(t, strings.ToLower(got), outside, "a report is one file, and foreign names are text")
			}
		})
	}
}

// A project that cannot be listed is a failure without a cluster.
func TestHTMLNamesAFailedProject(t *testing.T) {
	failed := failureOf("07", "")
	failed.ClusterID = ""
	fleet := &fleetStatus{}
	fleet.Failures = []workflows.ClusterFailure{failed}
	assert.Contains(t, htmlOf(t, fleet), "project "+failed.ProjectID)
}

// Every mark has a sign and a text beside its color.
func TestHTMLMarksNeedNoColors(t *testing.T) {
	got := htmlOf(t, endedStatus(witnessedResult(), ""))
	marks := regexp.MustCompile(`<span class="(?:good|bad|open|neutral)(?: status)?"><span class="sign" aria-hidden="true">(.)&nbsp;</span>([^<]+)</span>`).FindAllStringSubmatch(got, -1)
	require.Len(t, marks, strings.Count(got, `class="sign"`)-1, "all but the verdict, which is a paragraph")
	signs := map[string]string{}
	for _, mark := range marks {
		signs[mark[2]] = mark[1]
	}
	assert.Equal(t, "✓", signs["verified"])
	assert.Equal(t, "✗", signs["failed"])
	assert.Equal(t, "–", signs["forbidden"])
}

func TestHTMLIsAFormatOfReportsOnly(t *testing.T) {
	for _, command := range [][]string{{"keys"}, {"watch", "--project", testProject, "--cluster", testCluster}, {"report", "--fleet", "--each-cluster"}} {
		code, _, _ := runHere(t, nil, nil, append(command, "-o", "html")...)
		assert.Equal(t, exitUsage, code, "%v", command)
	}
	_, stdout, _ := runHere(t, nil, nil, "report", "--help")
	assert.Contains(t, strings.Join(strings.Fields(stdout), " "), "table, json, csv, markdown, html;")
}
