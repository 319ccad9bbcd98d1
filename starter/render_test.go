package main

import (
	"encoding/csv"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"keyturn/workflows"
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
Targets       3 verified, 1 skipped, 1 failed

┌──────────────────────────┬──────────┬──────────────┬──────────────────────┬──────────┐
│ Target                   │ Status   │ Previous key │ Rotated              │ Attempts │
│ Cluster id               │ Role     │ New key      │ Verified             │          │
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
  orders-1 (verified): verified by an earlier run
  orders-2 (verified): a PUT's outcome was unknown and settled by reading
  =cmd|' /C calc'!A0 (skipped): Skipped: skipped by erin: retired
  a|b red<b> (failed): KeyUnchanged: accepted, "never" changed
`
	got := endedSo(partialResult(), "PartialFailure: 3 of 5 targets verified").table()
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTableOfAPlanShowsTheCurrentKeys(t *testing.T) {
	planned := progressOf(workflows.PhaseDone, target("00", "orders-0", workflows.StatusPlanned)).RotateClusterResult
	planned.Outcome = workflows.OutcomePlanned
	got := endedSo(planned, "").table()
	if !strings.Contains(got, "│ Target   │ Role  │ Cluster id               │ Status  │ Current key │") ||
		!strings.Contains(got, "│ orders-0 │ shard │ 5196e5b0e4b0fca9cc883300 │ planned │ old-00      │") {
		t.Errorf("got\n%s", got)
	}
}

func TestReportsOfARunWithoutTargetsHaveNoTable(t *testing.T) {
	f := &clusterAccount{Progress: progressOf(workflows.PhaseListing)}
	for name, got := range map[string]string{"table": f.table(), "markdown": f.markdown()} {
		if !strings.Contains(got, "none yet: listing") || strings.ContainsAny(got, "│|") {
			t.Errorf("%s: got\n%s", name, got)
		}
	}
}

func TestMarkdownKeepsForeignMarkupOut(t *testing.T) {
	want := "# Key rotation of orders\n\n" +
		"- **Cluster:** orders (5196e5b0e4b0fca9cc88334a)\n- **Project:** 5196d3628d022db4cbc26d9e\n- **Connection:** default\n- **Outcome:** partial\n" +
		"- **Requested by:** dana\n- **Ticket:** CHG0031337\n- **Reason:** @quarterly\n- **Approved by:** erin at 2026-03-01T11:59:59Z: go\n" +
		"- **Started:** 2026-03-01T12:00:00Z\n- **Finished:** 2026-03-01T12:01:30Z (after 1m30s)\n- **Targets:** 3 verified, 1 skipped, 1 failed\n\n" +
		"## Targets\n\n" +
		"| Target | Cluster id | Role | Status | Previous key | New key | Rotated | Verified | Attempts |\n" +
		"| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n" +
		"| orders-0 | 5196e5b0e4b0fca9cc883300 | shard | verified | old-00 | new-00 | 2026-03-01T12:00:00Z | 2026-03-01T12:00:01Z | 1 |\n" +
		"| orders-1 | 5196e5b0e4b0fca9cc883301 | shard | verified | old-01 | new-01 | 2026-03-01T12:00:01Z | 2026-03-01T12:00:02Z | 1 |\n" +
		"| orders-2 | 5196e5b0e4b0fca9cc883302 | shard | verified | old-02 | new-02 | 2026-03-01T12:00:03Z | 2026-03-01T12:00:04Z | 3 |\n" +
		"| =cmd\\|' /C calc'!A0 | 5196e5b0e4b0fca9cc883303 | shard | skipped | old-03 |  |  |  | 0 |\n" +
		"| a\\|b red&lt;b> | 5196e5b0e4b0fca9cc883304 | shard | failed | old-04 |  | 2026-03-01T12:00:05Z |  | 1 |\n\n" +
		"## Remarks\n\n" +
		"| Target | Status | Remark |\n| --- | --- | --- |\n" +
		"| orders-1 | verified | verified by an earlier run |\n" +
		"| orders-2 | verified | a PUT's outcome was unknown and settled by reading |\n" +
		"| =cmd\\|' /C calc'!A0 | skipped | Skipped: skipped by erin: retired |\n" +
		"| a\\|b red&lt;b> | failed | KeyUnchanged: accepted, \"never\" changed |\n"
	if got := endedSo(partialResult(), "").markdown(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got, want := markdownText("[x](y) `c` *d* <e> &amp; \\"), "\\[x\\](y) \\`c\\` \\*d\\* &lt;e> &amp;amp; \\\\"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestCSVHasOneCompleteRowATarget(t *testing.T) {
	text := endedSo(partialResult(), "").csv()
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	head := "connection,projectId,rotatedClusterId,cluster,outcome,ticket,requestedBy,reason,approvedBy,approvedAt,startedAt,finishedAt," +
		"target,clusterId,role,status,previousKeyUUID,newKeyUUID,rotatedAt,verifiedAt,attempts,ambiguous,carriedOver,errorType,errorMessage"
	run := "default,5196d3628d022db4cbc26d9e,5196e5b0e4b0fca9cc88334a,orders,partial,CHG0031337,dana,'@quarterly,erin,2026-03-01T11:59:59Z,2026-03-01T12:00:00Z,2026-03-01T12:01:30Z,"
	want := [][]string{
		strings.Split(head, ","),
		strings.Split(run+"orders-0,5196e5b0e4b0fca9cc883300,shard,verified,old-00,new-00,2026-03-01T12:00:00Z,2026-03-01T12:00:01Z,1,false,false,,", ","),
		strings.Split(run+"orders-1,5196e5b0e4b0fca9cc883301,shard,verified,old-01,new-01,2026-03-01T12:00:01Z,2026-03-01T12:00:02Z,1,false,true,,", ","),
		strings.Split(run+"orders-2,5196e5b0e4b0fca9cc883302,shard,verified,old-02,new-02,2026-03-01T12:00:03Z,2026-03-01T12:00:04Z,3,true,false,,", ","),
		strings.Split(run+"'=cmd|' /C calc'!A0,5196e5b0e4b0fca9cc883303,shard,skipped,old-03,,,,0,false,false,Skipped,skipped by erin: retired", ","),
		append(strings.Split(run+"a|b red<b>,5196e5b0e4b0fca9cc883304,shard,failed,old-04,,2026-03-01T12:00:05Z,,1,false,false,KeyUnchanged", ","), `accepted, "never" changed`),
	}
	if !reflect.DeepEqual(rows, want) {
		t.Errorf("got\n%q\nwant\n%q", rows, want)
	}
	if lines := strings.Count(text, "\n"); lines != len(want)-1 {
		t.Errorf("%d line ends for %d rows: a name has broken a line", lines, len(want))
	}
}

func TestJSONIsExactlyTheResult(t *testing.T) {
	a, stdout, _ := newTestApp()
	a.format = formatJSON
	result := partialResult()
	result.Targets[0].Name = "\u009b31m\x7f<&>"
	if err := a.write(endedSo(result, "no part of it"), result); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsFunc(stdout.String(), func(r rune) bool { return r == '\x1b' || r == '\u009b' || r == '\x7f' }) {
		t.Errorf("a terminal would act on %q", stdout.String())
	}
	var read workflows.RotateClusterResult
	if err := json.Unmarshal(stdout.Bytes(), &read); err != nil || !reflect.DeepEqual(read, result) {
		t.Errorf("%v: got %+v, want %+v", err, read, result)
	}
	var fields map[string]any
	if err := json.Unmarshal(stdout.Bytes(), &fields); err != nil || len(fields) != reflect.TypeFor[workflows.RotateClusterResult]().NumField() {
		t.Errorf("%v: fields %v", err, fields)
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
		if got := clean(foreign); got != want {
			t.Errorf("clean(%q) is %q, want %q", foreign, got, want)
		}
	}
}
