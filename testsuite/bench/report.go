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

// none marks what was not measured.
const none = "-"

// comparisons is the report of all cases.
type comparisons struct {
	Machine machine      `json:"machine"`
	Repeat  int          `json:"repeat"`
	Cases   []comparison `json:"cases"`
	// MissingForCurl are the missing programs because of which curl was not
	// measured.
	MissingForCurl []string `json:"missingForCurl,omitempty"`
}

// runCases measures the cases sequentially and reports them.
func (r *harness) runCases(ctx context.Context, s settings, stdout io.Writer) error {
	report := comparisons{Repeat: s.repeat, MissingForCurl: missingForCurl()}
	var err error
	if report.Machine, err = r.machine(ctx); err != nil {
		return err
	}
	if len(report.MissingForCurl) > 0 {
		r.progressf("curl is not measured: not installed: %s", strings.Join(report.MissingForCurl, ", "))
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
	fmt.Fprintf(&b, "keyturn benchmark: %s\n", c.Machine)
	fmt.Fprintf(&b, "\nShare of the ideal: 1.00 = as fast as the 3 requests per target allow; in brackets minimum and maximum\nof %d runs\n%s\n", c.Repeat, c.shares())
	fmt.Fprintf(&b, "\nRequests to Ops Manager\n%s\n", c.requestTable())
	fmt.Fprintf(&b, "\nCosts in Temporal and in the worker\n%s\n", c.costs())
	if withPhases {
		fmt.Fprintf(&b, "\nPhases of keyturn, in the run with the median time\n%s\n", c.phases())
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

func (w *method) share() string {
	switch {
	case w == nil:
		return none
	case w.Runs == 1:
		return fmt.Sprintf("%.2f", w.Share.Median)
	}
	return fmt.Sprintf("%.2f (%.2f-%.2f)", w.Share.Median, w.Share.Min, w.Share.Max)
}

func (w *method) time() string {
	if w == nil {
		return none
	}
	return fmt.Sprintf("%.2f s", w.Seconds.Median)
}

func (c comparisons) requestTable() string {
	t := newTable("targets : latency : in flight", "method", "requests per target", "for keys", "others in total", "challenges in total", "peak in flight")
	t.SetColumnConfigs(nil)
	for _, one := range c.Cases {
		for _, w := range one.methods() {
			if w.method == nil {
				continue
			}
			a := w.Requests
			t.AppendRow(table.Row{
				one.measured, w.name, fmt.Sprintf("%.2f", w.RequestsPerTarget), fmt.Sprintf("%.2f", float64(a.KeyRequests)/float64(one.Targets)),
				a.OtherRequests, a.Challenges, fmt.Sprintf("%d of %d", a.PeakInFlight, w.allowed),
			})
		}
	}
	return t.Render()
}

// namedMethod is a method of a comparison; nil if not measured.
type namedMethod struct {
	*method
	name    string
	allowed int // in flight
}

func (c *comparison) methods() []namedMethod {
	return []namedMethod{
		{&c.Keyturn, "keyturn", c.InFlight},
		{&c.KeyturnInStep, "keyturn in step", c.InFlight},
		{c.CurlParallel, "curl in parallel", c.InFlight},
		{c.CurlLoop, "curl loop", 1},
	}
}

func (c comparisons) costs() string {
	t := newTable("targets : latency : in flight", "history events per target", "actions per target", "history bytes per target", "peak memory of the worker")
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
busy = running activities while all targets but the first are rotated; turn = from the end of an activity
to the completion of the workflow task that handles it; wait = from scheduled to started`
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

// notes explain the figures and what they leave out.
func (c comparisons) notes() string {
	kinds := map[string]bool{}
	for _, one := range c.Cases {
		for kind := range one.Costs.Actions {
			kinds[kind] = true
		}
	}
	curl := `curl: Ops Manager's documented PUT for each target, with a GET before and after; one process for each
request, which needs its own digest challenge. The simulated Ops Manager answers challenges without latency,
unlike a real one, which favors curl. "In parallel" = as many loops in parallel as keyturn has requests in
flight (xargs -P). The curl loop runs once. Neither curl method finds the targets, keeps records, or survives
a failure.`
	if len(c.MissingForCurl) > 0 {
		curl = "curl was not measured; not installed: " + strings.Join(c.MissingForCurl, ", ") + "."
	}
	return fmt.Sprintf(`
ideal: targets x 3 requests x latency / requests in flight, and nothing else.
keyturn: from the start of the rotation to its result, which includes listing the targets, reading their keys,
and rotating the first target alone. A small rotation runs before, as a warm-up. The worker has
OPS_MANAGER_MAX_IN_FLIGHT set to the requests in flight, and the concurrency is twice as high, so that
requests are sent while other targets wait for Temporal. "In step" = concurrency equal to the requests in flight.
All keys are read before the first PUT, so that a reset cannot cause a second one, and the first target is
rotated alone: with 64 targets and 8 in flight, at least 27 requests are sequential, not 24; 0.89 is the
maximum.
%s
Every run is checked against the ledger of the simulated Ops Manager: one PUT per target, and no more requests
in flight than allowed. Actions are counted by the Temporal server (its metric "action", which corresponds to
Temporal Cloud's billing: starts of workflows and activities, each retry and heartbeat, timers, signals,
queries, updates and so on); here: %s.
`, curl, strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
}
