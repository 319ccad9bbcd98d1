package main

import (
	"fmt"
	"html"
	"strings"
	"time"
)

// Dimensions in pixels.
const (
	pictureWidth = 880
	marginX      = 28
	barsX        = 176 // position of 0
	barsWidth    = 560 // width of 1
	barHeight    = 18
	valueWidth   = 90
	barStep      = 24
	headHeight   = 120
	groupHead    = 28
	groupGap     = 18
	axisHeight   = 32
	footHeight   = 58
)

// The CSS classes of the methods.
var barClasses = []string{"keyturn", "instep", "parallel", "loop"}

// pictureStyle supports light and dark pages, with its own background.
const pictureStyle = `
  svg { --paper: #ffffff; --edge: #d5dae1; --ink: #1c232c; --faint: #5d6875; --grid: #e6e9ee; --keyturn: #1f6feb; --instep: #79b0f7; --parallel: #7d8a99; --loop: #b9c1cb; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #161b22; --edge: #30363d; --ink: #e6edf3; --faint: #9aa5b1; --grid: #2a313a; --keyturn: #58a6ff; --instep: #2f6cb5; --parallel: #8b98a6; --loop: #55606c; }
  }
  text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; font-size: 13px; fill: #1c232c; fill: var(--ink); }
  .paper { fill: #ffffff; fill: var(--paper); stroke: #d5dae1; stroke: var(--edge); }
  .title { font-size: 19px; font-weight: 600; }
  .group { font-weight: 600; }
  .faint { fill: #5d6875; fill: var(--faint); }
  .small { font-size: 12px; }
  .grid { stroke: #e6e9ee; stroke: var(--grid); }
  .ideal { stroke: #1c232c; stroke: var(--ink); stroke-dasharray: 4 3; }
  .range { stroke: #1c232c; stroke: var(--ink); stroke-width: 1.5; }
  .value { paint-order: stroke; stroke: #ffffff; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; }
  .keyturn { fill: #1f6feb; fill: var(--keyturn); }
  .instep { fill: #79b0f7; fill: var(--instep); }
  .parallel { fill: #7d8a99; fill: var(--parallel); }
  .loop { fill: #b9c1cb; fill: var(--loop); }
`

// drawing is an SVG that is written from top to bottom.
type drawing struct {
	strings.Builder
	y int
}

// picture draws the shares of the ideal as bars, with a group for each case.
func (c comparisons) picture() string {
	groups := 0
	for _, one := range c.Cases {
		groups += heightOf(one)
	}
	height := headHeight + groups + axisHeight + footHeight
	d := &drawing{}
	d.printf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="%s">`,
		pictureWidth, height, pictureWidth, height, html.EscapeString(c.inWords()))
	d.printf("<style>%s</style>", pictureStyle)
	d.printf(`<rect class="paper" x="0.5" y="0.5" width="%d" height="%d" rx="8"/>`, pictureWidth-1, height-1)
	d.head(c)
	d.axis(groups)
	for _, one := range c.Cases {
		d.group(one)
	}
	d.y += axisHeight
	d.foot(c)
	d.printf("</svg>")
	return d.String()
}

// inWords describes the picture for screen readers.
func (c comparisons) inWords() string {
	words := []string{"Share of the ideal time"}
	for _, one := range c.Cases {
		words = append(words, caseInWords(one.measured)+": "+strings.Join(sharesInWords(one), ", "))
	}
	return strings.Join(words, "; ")
}

func sharesInWords(one comparison) (words []string) {
	for _, w := range one.measuredMethods() {
		words = append(words, fmt.Sprintf("%s %.2f", w.name, w.Share.Median))
	}
	return words
}

// measuredMethods are the methods that were measured.
func (c *comparison) measuredMethods() (measured []namedMethod) {
	for _, w := range c.methods() {
		if w.method != nil {
			measured = append(measured, w)
		}
	}
	return measured
}

func caseInWords(c benchCase) string {
	return fmt.Sprintf("%d targets, %s per request, %d in flight", c.targets, shortDuration(c.latency), c.inFlight)
}

func shortDuration(d time.Duration) string {
	if d%time.Second == 0 {
		return fmt.Sprintf("%d s", d/time.Second)
	}
	return fmt.Sprintf("%g ms", float64(d)/float64(time.Millisecond))
}

func heightOf(one comparison) int {
	return groupHead + len(one.measuredMethods())*barStep + groupGap
}

func (d *drawing) printf(format string, arguments ...any) {
	fmt.Fprintf(d, format+"\n", arguments...)
}

func (d *drawing) text(class string, x, y int, anchor, words string) {
	d.printf(`<text class="%s" x="%d" y="%d" text-anchor="%s">%s</text>`, class, x, y, anchor, html.EscapeString(words))
}

func (d *drawing) line(class string, x1, y1, x2, y2 int) {
	d.printf(`<line class="%s" x1="%d" y1="%d" x2="%d" y2="%d"/>`, class, x1, y1, x2, y2)
}

func (d *drawing) head(c comparisons) {
	d.text("title", marginX, 38, "start", "Rotating every key of a cluster: share of the ideal time")
	d.text("faint", marginX, 60, "start", "1.00 = as fast as 3 requests per target allow (GET, PUT, GET) with this many in flight. Higher is better.")
	if len(c.Cases) > 0 {
		x := marginX
		for i, w := range c.Cases[0].methods() {
			if w.method == nil {
				continue
			}
			words := legend[i]
			d.printf(`<rect class="%s" x="%d" y="78" width="12" height="12" rx="2"/>`, barClasses[i], x)
			d.text("small", x+18, 89, "start", words)
			x += 34 + 6*len(words)
		}
	}
	d.y = headHeight
}

var legend = []string{
	"keyturn, on a real Temporal server",
	"with concurrency = in flight",
	"curl, loops in parallel",
	"curl loop, as documented",
}

// axis draws the scale below the groups and its lines behind them.
func (d *drawing) axis(groups int) {
	top, bottom := d.y-8, d.y+groups-groupGap+6
	for i := range 5 {
		x := xOf(float64(i) / 4)
		class := "grid"
		if i == 4 {
			class = "ideal"
		}
		d.line(class, x, top, x, bottom)
		d.text("faint small", x, bottom+18, "middle", fmt.Sprintf("%.2f", float64(i)/4))
	}
	d.text("faint small", xOf(1)+22, bottom+18, "start", "= ideal")
}

// xOf is the position of a share; shares above the ideal end there.
func xOf(share float64) int { return barsX + int(min(share, 1)*barsWidth+0.5) }

func (d *drawing) group(one comparison) {
	d.text("group value", marginX, d.y+14, "start", caseInWords(one.measured))
	d.text("faint value", pictureWidth-marginX, d.y+14, "end", "ideal "+secondsInWords(one.IdealSeconds))
	d.y += groupHead
	for i, w := range one.methods() {
		if w.method == nil {
			continue
		}
		d.bar(barClasses[i], w)
		d.y += barStep
	}
	d.y += groupGap
}

func (d *drawing) bar(class string, w namedMethod) {
	middle := d.y + barHeight/2
	end := xOf(w.Share.Median)
	d.text("faint", barsX-12, middle+5, "end", w.name)
	d.printf(`<rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="2"/>`, class, barsX, d.y, max(end-barsX, 1), barHeight)
	if w.Runs > 1 {
		least, most := xOf(w.Share.Min), xOf(w.Share.Max)
		d.line("range", least, middle, most, middle)
		d.line("range", least, middle-4, least, middle+4)
		d.line("range", most, middle-4, most, middle+4)
		end = max(end, most)
	}
	x := end + 8
	if x+valueWidth > xOf(1) { // not across the ideal line
		x = xOf(1) + 10
	}
	d.printf(`<text class="value" x="%d" y="%d">%.2f<tspan class="faint" dx="10">%s</tspan></text>`,
		x, middle+5, w.Share.Median, secondsInWords(w.Seconds.Median))
}

func secondsInWords(seconds float64) string {
	if seconds < 10 {
		return fmt.Sprintf("%.2f s", seconds)
	}
	return fmt.Sprintf("%.1f s", seconds)
}

func (d *drawing) foot(c comparisons) {
	d.text("faint small", marginX, d.y+14, "start", fmt.Sprintf("Medians of %d runs, with minimum and maximum; the curl loop once. keyturn: from the start to the result, including listing.", c.Repeat))
	d.text("faint small", marginX, d.y+34, "start", c.Machine.String())
	d.text("faint small", pictureWidth-marginX, d.y+34, "end", "go run ./testsuite/bench")
}
