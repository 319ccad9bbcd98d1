package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/client"

	"keyturn/workflows"
)

// timeField describes one field of a cron expression.
type timeField struct {
	name            string
	lowest, highest int
	names           []string // of the values, from lowest on
	shortestName    int
	prefix          string // of a list of values in words
}

// timeFields are in the order of a cron expression with all of them.
var timeFields = [...]timeField{
	{name: "second", highest: 59}, {name: "minute", highest: 59}, {name: "hour", highest: 23},
	{name: "day of month", lowest: 1, highest: 31, prefix: "on day "},
	{name: "month", lowest: 1, highest: 12, shortestName: 3, prefix: "in ", names: []string{
		"January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"}},
	{name: "weekday", highest: 6, shortestName: 2, prefix: "on ", names: []string{
		"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"}},
	{name: "year", lowest: 2000, highest: 2100, prefix: "in "},
}

const (
	year          = 6
	maxTimesOfDay = 4 // listed in words
)

func rangesOf(spec *client.ScheduleCalendarSpec) [len(timeFields)]*[]client.ScheduleRange {
	return [...]*[]client.ScheduleRange{&spec.Second, &spec.Minute, &spec.Hour, &spec.DayOfMonth, &spec.Month, &spec.DayOfWeek, &spec.Year}
}

// calendar has the sorted values of each field: two calendars with the same
// values are the same schedule, however it was written.
type calendar [len(timeFields)][]int

// calendarOf reads a calendar of any schedule.
func calendarOf(spec client.ScheduleCalendarSpec) (c calendar) {
	if len(spec.Year) == 0 {
		spec.Year = []client.ScheduleRange{{Start: timeFields[year].lowest, End: timeFields[year].highest}}
	}
	for i, ranges := range rangesOf(&spec) {
		f := timeFields[i]
		for _, r := range *ranges {
			c[i] = append(c[i], counted(max(r.Start, f.lowest), min(max(r.Start, r.End), f.highest), max(r.Step, 1))...)
		}
		slices.Sort(c[i])
		c[i] = slices.Compact(c[i])
	}
	return c
}

func counted(first, last, step int) (values []int) {
	for value := first; value <= last; value += step {
		values = append(values, value)
	}
	return values
}

// predefinedCrons are those that Temporal takes.
var predefinedCrons = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
	"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

// parseCron reads a cron expression as Temporal does. It is not left to Temporal,
// so that --diff can compare, and because server 1.29 reads the weekdays 1-7 as
// 1-6. Parsers such as robfig/cron know neither years nor Sunday as 7.
func parseCron(text string) (spec client.ScheduleCalendarSpec, err error) {
	parts := strings.Fields(cmp.Or(predefinedCrons[text], text))
	if len(parts) == 5 || len(parts) == 6 {
		parts = append([]string{"0"}, parts...)
	}
	if len(parts) == 6 {
		parts = append(parts, "*")
	}
	if len(parts) != len(timeFields) {
		return spec, fmt.Errorf("%q must have 5 fields (minute, hour, day of month, month, weekday), 6 (and year) or 7 (second first)", text)
	}
	for i, ranges := range rangesOf(&spec) {
		f := timeFields[i]
		if i == year && parts[i] == "*" {
			continue // none is all
		}
		if *ranges = f.parse(parts[i]); *ranges == nil {
			return spec, fmt.Errorf("%q: the %s %q must be %d to %d, or a list (1,3), range (1-3) or step (*/2) of these", text, f.name, parts[i], f.lowest, f.highest)
		}
	}
	if !calendarOf(spec).hasDayFrom(time.Now()) {
		return spec, fmt.Errorf("%q never runs: no date from now on matches its day of month, month, weekday and year together", text)
	}
	return spec, nil
}

// hasDayFrom reports whether any day matches, from a time on.
func (c calendar) hasDayFrom(from time.Time) bool {
	day := from.UTC().AddDate(0, 0, -1) // it may still be that day in other time zones
	for ; day.Year() <= timeFields[year].highest; day = day.AddDate(0, 0, 1) {
		values := map[int]int{3: day.Day(), 4: int(day.Month()), 5: int(day.Weekday()), year: day.Year()}
		if !slices.ContainsFunc([]int{3, 4, 5, year}, func(i int) bool { return !slices.Contains(c[i], values[i]) }) {
			return true
		}
	}
	return false
}

// parse reads a list such as "1-5/2,8"; nil = it is not valid.
func (f timeField) parse(list string) (ranges []client.ScheduleRange) {
	for part := range strings.SplitSeq(list, ",") {
		span, stepText, hasStep := strings.Cut(part, "/")
		from, to, isRange := strings.Cut(span, "-")
		first, last, highest, step := f.value(from), f.value(to), f.highest, 1
		if f.name == "weekday" {
			highest = 7 // Sunday, like 0
		}
		switch {
		case span == "*":
			first, last = f.lowest, f.highest
		case !isRange && hasStep:
			last = highest
		case !isRange:
			last = first
		}
		if hasStep {
			step, _ = strconv.Atoi(stepText)
		}
		if first < f.lowest || last < first || last > highest || step < 1 {
			return nil
		}
		if last > f.highest && (last-first)%step == 0 {
			ranges = append(ranges, client.ScheduleRange{Step: 1})
		}
		if first <= f.highest {
			ranges = append(ranges, client.ScheduleRange{Start: first, End: min(last, f.highest), Step: step})
		}
	}
	return ranges
}

// value is -1 if the text is neither a name nor a number.
func (f timeField) value(text string) int {
	for i, name := range f.names {
		if len(text) >= f.shortestName && strings.HasPrefix(strings.ToLower(name), strings.ToLower(text)) {
			return f.lowest + i
		}
	}
	if n, err := strconv.Atoi(text); err == nil {
		return n
	}
	return -1
}

// cron is the calendar as an expression with as few fields as possible.
func (c calendar) cron() string {
	parts := make([]string, len(c))
	for i, values := range c {
		f := timeFields[i]
		parts[i] = f.list(values, "-", ",", nil)
		if len(values) >= 3 && slices.Equal(values, counted(f.lowest, f.highest, values[1]-values[0])) {
			parts[i] = strings.TrimSuffix(fmt.Sprintf("*/%d", values[1]-values[0]), "/1")
		}
	}
	if parts[0] != "0" {
		return strings.Join(parts, " ")
	}
	return strings.TrimSuffix(strings.Join(parts[1:], " "), " *")
}

// list joins values, three and more consecutive ones as a range.
func (f timeField) list(values []int, to, and string, names []string) (text string) {
	follows := func(i int) bool { return i > 0 && i < len(values) && values[i] == values[i-1]+1 }
	for i, value := range values {
		switch {
		case follows(i) && follows(i+1):
			continue // inside a range
		case follows(i) && follows(i-1):
			text += to
		case i > 0:
			text += and
		}
		if names == nil {
			text += strconv.Itoa(value)
		} else {
			text += names[value-f.lowest]
		}
	}
	return text
}

// text is the calendar in words, and as a cron expression.
func (c calendar) text() string {
	var times, days []string
	for _, hour := range c[2] {
		for _, minute := range c[1] {
			for _, second := range c[0] {
				times = append(times, strings.TrimSuffix(fmt.Sprintf("%02d:%02d:%02d", hour, minute, second), ":00"))
			}
		}
	}
	for _, i := range []int{5, 3, 4, year} {
		if f := timeFields[i]; len(c[i]) <= f.highest-f.lowest {
			days = append(days, f.prefix+f.list(c[i], " to ", ", ", f.names))
		}
	}
	switch {
	case slices.ContainsFunc(c[:], func(values []int) bool { return len(values) == 0 }):
		return "never"
	case len(times) > maxTimesOfDay:
		return "cron " + c.cron()
	}
	return fmt.Sprintf("at %s %s (cron %s)", strings.Join(times, ", "), cmp.Or(strings.Join(days, ", "), "every day"), c.cron())
}

// timesText is when a schedule runs, in words, and what excludes times, which the
// Web UI can set. The order in which it was written does not matter.
func timesText(spec *client.ScheduleSpec) string {
	var all []string
	for _, written := range spec.Calendars {
		all = append(all, calendarOf(written).text())
	}
	for _, interval := range spec.Intervals {
		text := fmt.Sprintf("every %v, offset %v", workflows.Duration(interval.Every), workflows.Duration(interval.Offset))
		all = append(all, strings.TrimSuffix(text, ", offset 0s"))
	}
	slices.Sort(all)
	text := cmp.Or(strings.Join(slices.Compact(all), "; "), "never")
	for _, skipped := range spec.Skip {
		text += ", but not " + calendarOf(skipped).text()
	}
	if !spec.StartAt.IsZero() {
		text += ", from " + timeText(&spec.StartAt)
	}
	if !spec.EndAt.IsZero() {
		text += ", until " + timeText(&spec.EndAt)
	}
	return text
}

// nextTimeText shows a time in the zone, and in UTC.
func nextTimeText(t time.Time, zone string) string {
	const weekdayAndTime = "Mon 2006-01-02 15:04:05 MST"
	location, err := time.LoadLocation(zone)
	if err != nil || location == time.UTC {
		return t.UTC().Format(weekdayAndTime)
	}
	return fmt.Sprintf("%s (%s)", t.In(location).Format(weekdayAndTime), timeText(&t))
}
