package main

import (
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"keyturn/workflows"
)

// htmlChart is a chart of horizontal bars against a limit, in the units of an SVG.
type htmlChart struct {
	Title, Description, Limit, Note   string
	Width, Height, LabelEnd, BarStart int
	BarHeight, LimitTop               int
	LimitX, ValueX                    int
	Bars                              []htmlBar
}

// htmlBar is a bar; one without a length has only its texts.
type htmlBar struct {
	Label, Value     string
	Y, TextY, Length int
	Bad              bool
}

const (
	// maxBars is how many clusters a chart shows: those in the worst state, the
	// oldest keys first.
	maxBars = 30
	// maxBarLabel is how many characters of a name there is room for.
	maxBarLabel = 28

	chartWidth, chartTop, barStep, barHeight = 900, 22, 24, 14
	barStart, barRoom                        = 220, 500
)

// newAgeChart draws the ages of keys, in the order of the list.
func newAgeChart(ages []keyAge, olderThan workflows.Duration) *htmlChart {
	shown := ages[:min(len(ages), maxBars)]
	longest := olderThan.Std()
	for _, age := range shown {
		if age.Age != nil {
			longest = max(longest, age.Age.Std())
		}
	}
	scale := func(d time.Duration) int { return int(float64(barRoom) * float64(d) / float64(longest)) }
	c := &htmlChart{
		Title: "Age of each cluster's oldest key", Limit: "policy: " + olderThan.String(),
		Description: agesText(ages) + ". Bars beyond the dashed line are overdue, and hatched. The table below has the same values.",
		Width:       chartWidth, Height: chartTop + barStep*len(shown), LabelEnd: barStart - 8, BarStart: barStart, BarHeight: barHeight, LimitTop: chartTop - 4,
		LimitX: barStart + scale(olderThan.Std()), ValueX: barStart + barRoom + 12,
	}
	if more := len(ages) - len(shown); more > 0 {
		c.Note = pluralize(more, "more cluster") + ", in a better state or with younger keys: see the table"
	}
	for i, age := range shown {
		y := chartTop + barStep*i
		bar := htmlBar{Label: text.Snip(clean(age.name()), maxBarLabel, "…"), Y: y + 5, TextY: y + 16, Bad: age.Status != keyOK, Value: string(age.Status)}
		if age.Age != nil {
			bar.Length, bar.Value = max(scale(age.Age.Std()), 1), age.ageText()
			if age.Status != keyOK {
				bar.Value += ", " + string(age.Status)
			}
		}
		c.Bars = append(c.Bars, bar)
	}
	return c
}
