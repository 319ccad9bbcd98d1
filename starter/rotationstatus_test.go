package main

import (
	"encoding/csv"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"keyturn/workflows"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTableShowsEveryRecord(t *testing.T) {
	want := `Cluster       orders (5196e5b0e4b0fca9cc88334a)
Project       5196d3628d022db4cbc26d9e
Connection    default
Outcome       partial
Failure       PartialFailure: 3 of 5 targets verified
Requested by  dana
Ticket        CHG0031337
Reason        @quarterly
Approved by   erin at 2026-03-01T11:59:59Z: go
Started       2026-03-01T12:00:00Z
Finished      2026-03-01T12:01:30Z (after 1m30s)
Targets       3 verified, 1 skipped, 1 failed (1 carried over)

┌──────────────────────────┬──────────┬──────────────┬──────────────────────┬──────────┐
│ Target                   │ Status   │ Previous key │ Rotated              │ Attempts │
│ Cluster ID               │ Role     │ New key      │ Verified             │          │
├──────────────────────────┼──────────┼──────────────┼──────────────────────┼──────────┤
│ orders-0                 │ verified │ old-00       │ 2026-03-01T12:00:00Z │        1 │
│ 5196e5b0e4b0fca9cc883300 │ shard    │ new-00       │ 2026-03-01T12:00:01Z │          │
├──────────────────────────┼──────────┼──────────────┼──────────────────────┼──────────┤
│ orders-1                 │ verified │ old-01       │ 2026-03-01T12:00:01Z │        1 │
│ 5196e5b0e4b0fca9cc883301 │ shard    │ new-01       │ 2026-03-01T12:00:02Z │          │
├──────────────────────────┼──────────┼──────────────┼──────────────────────┼──────────┤
│ orders-2                 │ verified │ old-02       │ 2026-03-01T12:00:03Z │        3 │
│ 5196e5b0e4b0fca9cc883302 │ shard    │ new-02       │ 2026-03-01T12:00:04Z │          │
├──────────────────────────┼──────────┼──────────────┼──────────────────────┼──────────┤
│ =cmd|' /C calc'!A0       │ skipped  │ old-03       │ -                    │        0 │
│ 5196e5b0e4b0fca9cc883303 │ shard    │ -            │ -                    │          │
├──────────────────────────┼──────────┼──────────────┼──────────────────────┼──────────┤
│ a|b red<b>               │ failed   │ old-04       │ 2026-03-01T12:00:05Z │        1 │
│ 5196e5b0e4b0fca9cc883304 │ shard    │ -            │ -                    │          │
└──────────────────────────┴──────────┴──────────────┴──────────────────────┴──────────┘

Remarks
  orders-1 (verified): verified in an earlier run
  orders-2 (verified): failed first: Forbidden: 403; someone else replaced key older-02 before the PUT; PUT outcome was unknown and resolved by reading the key
  =cmd|' /C calc'!A0 (skipped): Skipped: skipped by erin: retired
  a|b red<b> (failed): KeyUnchanged: accepted, "never" changed

Actions
  7 older actions not listed
  2026-03-01T12:00:01Z pause by dana: <i> | peak
  2026-03-01T12:00:02Z retry by erin: orders-2
`
	got := endedStatus(partialResult(), "PartialFailure: 3 of 5 targets verified").table(layout{})
	assert.Equal(t, want, got)
}

func TestTableOfAPlanShowsTheCurrentKeys(t *testing.T) {
	planned := progressOf(workflows.PhaseDone, target("00", "orders-0", workflows.StatusPlanned)).RotateClusterResult
	planned.Outcome = workflows.OutcomePlanned
	got := endedStatus(planned, "").table(layout{})
	assert.Contains(t, got, "│ Target   │ Role  │ Cluster ID               │ Status  │ Current key │")
	assert.Contains(t, got, "│ orders-0 │ shard │ 5196e5b0e4b0fca9cc883300 │ planned │ old-00      │")
}

func TestReportsOfARunWithoutTargetsHaveNoTable(t *testing.T) {
	f := clusterStatusOf(progressOf(workflows.PhaseListing))
	for name, got := range map[string]string{"table": f.table(layout{}), "markdown": f.markdown()} {
		assert.Contains(t, got, "none yet: listing", name)
		assert.False(t, strings.ContainsAny(got, "│|"))
	}
}

func TestMarkdownKeepsForeignMarkupOut(t *testing.T) {
	want := "# Key rotation of orders\n\n" +
		"- **Cluster:** orders (5196e5b0e4b0fca9cc88334a)\n- **Project:** 5196d3628d022db4cbc26d9e\n- **Connection:** default\n- **Outcome:** partial\n" +
		"- **Requested by:** dana\n- **Ticket:** CHG0031337\n- **Reason:** \\@quarterly\n- **Approved by:** erin at 2026-03-01T11:59:59Z: go\n" +
		"- **Started:** 2026-03-01T12:00:00Z\n- **Finished:** 2026-03-01T12:01:30Z (after 1m30s)\n- **Targets:** 3 verified, 1 skipped, 1 failed (1 carried over)\n\n" +
		"## Targets\n\n" +
		"| Target | Cluster ID | Status | Role | Previous key | New key | Rotated | Verified | Attempts |\n" +
		"| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n" +
		"| orders-0 | 5196e5b0e4b0fca9cc883300 | verified | shard | old-00 | new-00 | 2026-03-01T12:00:00Z | 2026-03-01T12:00:01Z | 1 |\n" +
		"| orders-1 | 5196e5b0e4b0fca9cc883301 | verified | shard | old-01 | new-01 | 2026-03-01T12:00:01Z | 2026-03-01T12:00:02Z | 1 |\n" +
		"| orders-2 | 5196e5b0e4b0fca9cc883302 | verified | shard | old-02 | new-02 | 2026-03-01T12:00:03Z | 2026-03-01T12:00:04Z | 3 |\n" +
		"| =cmd\\|' /C calc'!A0 | 5196e5b0e4b0fca9cc883303 | skipped | shard | old-03 |  |  |  | 0 |\n" +
		"| a\\|b red&lt;b&gt; | 5196e5b0e4b0fca9cc883304 | failed | shard | old-04 |  | 2026-03-01T12:00:05Z |  | 1 |\n\n" +
		"## Remarks\n\n" +
		"| Target | Status | Remark |\n| --- | --- | --- |\n" +
		"| orders-1 | verified | verified in an earlier run |\n" +
		"| orders-2 | verified | failed first: Forbidden: 403; someone else replaced key older-02 before the PUT; PUT outcome was unknown and resolved by reading the key |\n" +
		"| =cmd\\|' /C calc'!A0 | skipped | Skipped: skipped by erin: retired |\n" +
		"| a\\|b red&lt;b&gt; | failed | KeyUnchanged: accepted, \"never\" changed |\n\n" +
		"## Actions\n\n" +
		"| At | By | Action | Targets | Reason |\n| --- | --- | --- | --- | --- |\n" +
		"| 2026-03-01T12:00:01Z | dana | pause |  | &lt;i&gt; \\| peak |\n" +
		"| 2026-03-01T12:00:02Z | erin | retry | orders-2 |  |\n\n7 older actions not listed\n"
	assert.Equal(t, want, endedStatus(partialResult(), "").markdown())
	assert.Equal(t, "\\[x\\](y) \\`c\\` \\*d\\* \\_f\\_ &lt;e&gt; &amp;amp; http:\\//g www\\.h i\\@j \\\\", markdownText("[x](y) `c` *d* _f_ <e> &amp; http://g www.h i@j \\"))
}

func TestCSVHasOneCompleteRowATarget(t *testing.T) {
	status := endedStatus(partialResult(), "")
	status.ofRun("W", "R")
	text := status.csv()
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	require.NoError(t, err)
	head := "connection,projectId,rotatedClusterId,cluster,outcome,ticket,requestedBy,reason,approvedBy,approvedAt,startedAt,finishedAt," +
		"target,clusterId,role,status,previousKeyUUID,newKeyUUID,rotatedAt,verifiedAt,attempts,ambiguous,carriedOver,errorType,errorMessage,firstErrorType,firstErrorMessage,replacedOutside,actions,kmipOutcome,kmipState,kmipInitialDate,kmipAskedAt,approvalComment,waitingFor,workflowId,runId"
	run := "default,5196d3628d022db4cbc26d9e,5196e5b0e4b0fca9cc88334a,orders,partial,CHG0031337,dana,'@quarterly,erin,2026-03-01T11:59:59Z,2026-03-01T12:00:00Z,2026-03-01T12:01:30Z,"
	whole := "7 older actions not listed; 2026-03-01T12:00:01Z pause by dana: <i> | peak"
	want := [][]string{
		strings.Split(head, ","),
		strings.Split(run+"orders-0,5196e5b0e4b0fca9cc883300,shard,verified,old-00,new-00,2026-03-01T12:00:00Z,2026-03-01T12:00:01Z,1,false,false,,,,,,"+whole+",,,,,go,,W,R", ","),
		strings.Split(run+"orders-1,5196e5b0e4b0fca9cc883301,shard,verified,old-01,new-01,2026-03-01T12:00:01Z,2026-03-01T12:00:02Z,1,false,true,,,,,,"+whole+",,,,,go,,W,R", ","),
		strings.Split(run+"orders-2,5196e5b0e4b0fca9cc883302,shard,verified,old-02,new-02,2026-03-01T12:00:03Z,2026-03-01T12:00:04Z,3,true,false,,,Forbidden,403,older-02,"+whole+"; 2026-03-01T12:00:02Z retry by erin: orders-2,,,,,go,,W,R", ","),
		strings.Split(run+"'=cmd|' /C calc'!A0,5196e5b0e4b0fca9cc883303,shard,skipped,old-03,,,,0,false,false,Skipped,skipped by erin: retired,,,,"+whole+",,,,,go,,W,R", ","),
		append(strings.Split(run+"a|b red<b>,5196e5b0e4b0fca9cc883304,shard,failed,old-04,,2026-03-01T12:00:05Z,,1,false,false,KeyUnchanged", ","), `accepted, "never" changed`, "", "", "", whole, "", "", "", "", "go", "", "W", "R"),
	}
	assert.Equal(t, want, rows)
	assert.Equal(t, len(want)-1, strings.Count(text, "\n"))
}

func TestJSONIsExactlyTheResult(t *testing.T) {
	a, stdout, _ := newTestApp()
	a.format = formatJSON
	result := partialResult()
	result.Targets[0].Name = "\u009b31m\x7f<&>"
	require.NoError(t, a.write(endedStatus(result, "no part of it"), result))
	assert.False(t, strings.ContainsFunc(stdout.String(), func(r rune) bool { return r == '\x1b' || r == '\u009b' || r == '\x7f' }))
	var read workflows.RotateClusterResult
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &read))
	assert.Equal(t, result, read)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &fields))
	require.Len(t, fields, reflect.TypeFor[workflows.RotateClusterResult]().NumField())
}

// Lists that are empty, or that records of earlier versions lack, are [] in JSON.
func TestListsAreNeverNullInJSON(t *testing.T) {
	for _, value := range []any{
		workflows.RotateClusterResult{}, clusterKind.newStatus().value(), workflows.RotateFleetResult{}, fleetKind.newStatus().value(), &keyView{},
		fleetCluster{Records: &workflows.RotateClusterResult{}}, []scheduleRecord{{}}, []*workflows.Progress{{}},
	} {
		text, err := jsonText(value, "")
		require.NoError(t, err)
		for _, list := range []string{"actions", "targets", "failures", "leftOut", "inWork", "keys", "reasons", "nextTimes"} {
			assert.NotContains(t, text, `"`+list+`": null`, "%T", value)
		}
	}
}

func TestCleanKeepsNothingThatATerminalActsOn(t *testing.T) {
	for foreign, want := range map[string]string{
		"plain ünï 生命":                   "plain ünï 生命",
		"\x1b[31mred\x1b[0m":             "red",
		"\x1b]0;title\x07x":              "x",
		"\x1b]8;;http://e/\x1b\\link":    "link",
		"a\r\nb\tc":                      "a  b c",
		"\u009b2Jx\x7f":                  " 2Jx ",
		"\x1b":                           " ",
		"\x1b(0q":                        "q",
		"bad \xff utf8":                  "bad � utf8",
		"over\u202eride\u2066 \u2028end": "override  end",
	} {
		assert.Equal(t, want, clean(foreign))
	}
}
