package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// none stands in a table for what was not measured.
const none = "-"

// comparisons are the report of all cases.
type comparisons struct {
	Machine machine      `json:"machine"`
	Repeat  int          `json:"repeat"`
	Cases   []comparison `json:"cases"`
	// MissingForCurl are the programs for want of which curl was not measured.
	MissingForCurl []string `json:"missingForCurl,omitempty"`
}

// runCases measures the cases one after the other and reports them.
func (r *rig) runCases(ctx context.Context, s settings, stdout io.Writer) error {
	report := comparisons{Repeat: s.repeat, MissingForCurl: missingForCurl()}
	var err error
	if report.Machine, err = r.machine(ctx); err != nil {
		return err
	}
	if len(report.MissingForCurl) > 0 {
		r.tell("curl is not measured: this machine has no %s", strings.Join(report.MissingForCurl, ", no "))
	}
	for _, c := range s.cases {
		compared, err := r.compare(ctx, c, s.repeat, len(report.MissingForCurl) == 0)
		if err != nil {
			return err
		}
		report.Cases = append(report.Cases, compared)
	}
	if s.svg != "" {
		if err := os.WriteFile(s.svg, []byte(report.picture()), 0o644); err != nil {
			return err
		}
	}
	if s.output == outputJSON {
		return writeJSON(stdout, report)
	}
	_, err = io.WriteString(stdout, report.text(s.phases))
	return err
}

func writeJSON(to io.Writer, report any) error {
	encoder := json.NewEncoder(to)
	encoder.SetIndent("", "  ")
	return encoder.Encode(report)
}

func (c comparisons) text(withPhases bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "keyturn's benchmark: %s\n", c.Machine)
	fmt.Fprintf(&b, "\nShare of the ideal: 1.00 = no longer than the requests must take, 3 a target; in brackets the least\nand the most of %d runs\n%s\n", c.Repeat, c.shares())
	fmt.Fprintf(&b, "\nWhat Ops Manager was asked\n%s\n", c.accounts())
	fmt.Fprintf(&b, "\nWhat it costs Temporal and the worker\n%s\n", c.costs())
	if withPhases {
		fmt.Fprintf(&b, "\nWhere keyturn's time goes, in the run of the median time\n%s\n", c.phases())
	}
	b.WriteString(c.notes())
	return b.String()
}

func newTable(header ...any) table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Options.DrawBorder = false
	t.Style().Options.SeparateColumns = false
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(header)
	var columns []table.ColumnConfig
	for i := range header[1:] {
		columns = append(columns, table.ColumnConfig{Number: i + 2, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(columns)
	return t
}

func (c comparisons) shares() string {
	t := newTable("targets : latency : in flight", "keyturn", "in step", "curl in parallel", "curl loop", "ideal", "keyturn", "in step", "curl in parallel", "curl loop")
	for _, one := range c.Cases {
		t.AppendRow(table.Row{
			one.measured, one.Keyturn.share(), one.KeyturnInStep.share(), one.CurlParallel.share(), one.CurlLoop.share(),
			fmt.Sprintf("%.2f s", one.IdealSeconds), one.Keyturn.time(), one.KeyturnInStep.time(), one.CurlParallel.time(), one.CurlLoop.time(),
		})
	}
	return t.Render()
}

func (w *way) share() string {
	switch {
	case w == nil:
		return none
	case w.Runs == 1:
		return fmt.Sprintf("%.2f", w.Share.Median)
	}
	return fmt.Sprintf("%.2f (%.2f-%.2f)", w.Share.Median, w.Share.Min, w.Share.Max)
}

func (w *way) time() string {
	if w == nil {
		return none
	}
	return fmt.Sprintf("%.2f s", w.Seconds.Median)
}

func (c comparisons) accounts() string {
	t := newTable("targets : latency : in flight", "way", "requests a target", "of keys", "others in all", "challenges in all", "peak in flight")
	t.SetColumnConfigs(nil)
	for _, one := range c.Cases {
		for _, w := range one.ways() {
			if w.way == nil {
				continue
			}
			a := w.Account
			t.AppendRow(table.Row{
				one.measured, w.name, fmt.Sprintf("%.2f", w.RequestsPerTarget), fmt.Sprintf("%.2f", float64(a.KeyRequests)/float64(one.Targets)),
				a.OtherRequests, a.Challenges, fmt.Sprintf("%d of %d", a.PeakInFlight, w.allowed),
			})
		}
	}
	return t.Render()
}

// namedWay is a way of a comparison; nil = not measured.
type namedWay struct {
	*way
	name    string
	allowed int // in flight
}

func (c *comparison) ways() []namedWay {
	return []namedWay{
		{&c.Keyturn, "keyturn", c.InFlight},
		{&c.KeyturnInStep, "keyturn in step", c.InFlight},
		{c.CurlParallel, "curl in parallel", c.InFlight},
		{c.CurlLoop, "curl loop", 1},
	}
}

func (c comparisons) costs() string {
	t := newTable("targets : latency : in flight", "history events a target", "actions a target", "bytes of history a target", "worker's peak memory")
	for _, one := range c.Cases {
		t.AppendRow(table.Row{
			one.measured, fmt.Sprintf("%.1f", one.Costs.EventsPerTarget), fmt.Sprintf("%.2f", one.Costs.ActionsPerTarget),
			fmt.Sprintf("%.0f", one.Costs.BytesPerTarget), megabytes(one.Costs.PeakMemory),
		})
	}
	return t.Render()
}

func megabytes(bytes uint64) string {
	if bytes == 0 {
		return none
	}
	return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
}

func (c comparisons) phases() string {
	t := newTable("targets : latency : in flight", "starting", "listing", "reading", "canary", "rotating", "ending", "busy", "turn", "activities: wait + work, ms")
	for _, one := range c.Cases {
		p := one.Phases
		t.AppendRow(table.Row{
			one.measured, milliseconds(p.Starting), milliseconds(p.Listing), milliseconds(p.Reading), milliseconds(p.Canary),
			milliseconds(p.Rotating), milliseconds(p.Ending), fmt.Sprintf("%.1f of %d", p.Busy, one.InFlight), milliseconds(p.Turn), p.kinds(),
		})
	}
	return t.Render() + `
busy = activities being worked on while all but the first target are rotated; turn = from an activity's
end to the workflow having taken note of it; wait = from being asked for to being begun by a worker`
}

func (p phases) kinds() string {
	var kinds []string
	for _, kind := range p.Kinds {
		kinds = append(kinds, fmt.Sprintf("%s %.0f + %.0f", kind.Type, kind.Wait*1000, kind.Work*1000))
	}
	return strings.Join(kinds, ", ")
}

func milliseconds(seconds float64) string {
	return fmt.Sprintf("%d ms", time.Duration(seconds*float64(time.Second)).Milliseconds())
}

// notes say what the figures mean and what they leave out.
func (c comparisons) notes() string {
	kinds := map[string]bool{}
	for _, one := range c.Cases {
		for kind := range one.Costs.Actions {
			kinds[kind] = true
		}
	}
	curl := `curl: Ops Manager's documented PUT for each target, with a GET before and a GET after; a process for each
request, which pays a digest challenge of its own. The simulated Ops Manager answers challenges without
latency, which a real one does not: that is in curl's favour. "In parallel" = as many loops at a time as
keyturn has requests in flight (xargs -P). The curl loop is run once. Neither way by curl finds the
targets, keeps records, or survives a failure.`
	if len(c.MissingForCurl) > 0 {
		curl = "curl was not measured: this machine has no " + strings.Join(c.MissingForCurl, ", no ") + "."
	}
	return fmt.Sprintf(`
ideal: targets x 3 requests x latency / requests in flight, and nothing else.
keyturn: from asking for the rotation to having its result, so listing the targets, reading their keys,
and the first target alone are included. Warm: another small rotation went before. The worker has
OPS_MANAGER_MAX_IN_FLIGHT set to the requests in flight, and the rotation twice as many targets in work
(concurrency), so that a request goes out while other targets wait for Temporal. "In step" = no more
targets in work than requests in flight.
All keys are read before the first PUT, so that a reset can't lead to a second one, and the first target
goes alone: with 64 targets, 8 in flight, 27 requests one after the other are the least, not 24; 0.89 is
the most that there is.
%s
Every run is checked by the simulated Ops Manager's ledger: one PUT a target, and no more requests in
flight than allowed. Actions are what the Temporal server itself counts as such (its metric "action", the
one of Temporal Cloud's bill: starts of workflows and activities, each retry and heartbeat, timers, signals,
queries, updates and so on); here: %s.
`, curl, strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
}
