package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/client"
)

// The fields of a calendar, in the order of a cron expression of seven.
const (
	secondField = iota
	minuteField
	hourField
	dayField
	monthField
	weekdayField
	yearField
	fieldCount
)

// timeField is what a cron expression can say of one field.
type timeField struct {
	name            string
	lowest, highest int
	names           []string // of the values from lowest on
	shortestName    int
	ranges          func(*client.ScheduleCalendarSpec) *[]client.ScheduleRange
}

var (
	monthNames   = []string{"January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"}
	weekdayNames = []string{"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"}
)

var timeFields = [fieldCount]timeField{
	{name: "second", highest: 59, ranges: func(c *client.ScheduleCalendarSpec) *[]client.ScheduleRange { return &c.Second }},
	{name: "minute", highest: 59, ranges: func(c *client.ScheduleCalendarSpec) *[]client.ScheduleRange { return &c.Minute }},
	{name: "hour", highest: 23, ranges: func(c *client.ScheduleCalendarSpec) *[]client.ScheduleRange { return &c.Hour }},
	{name: "day of the month", lowest: 1, highest: 31, ranges: func(c *client.ScheduleCalendarSpec) *[]client.ScheduleRange { return &c.DayOfMonth }},
	{name: "month", lowest: 1, highest: 12, names: monthNames, shortestName: 3, ranges: func(c *client.ScheduleCalendarSpec) *[]client.ScheduleRange { return &c.Month }},
	{name: "day of the week", highest: 6, names: weekdayNames, shortestName: 2, ranges: func(c *client.ScheduleCalendarSpec) *[]client.ScheduleRange { return &c.DayOfWeek }},
	{name: "year", lowest: 2000, highest: 2100, ranges: func(c *client.ScheduleCalendarSpec) *[]client.ScheduleRange { return &c.Year }},
}

// calendar has the values that each field may have, in order and each once. It
// is the same however it was written: two calendars are compared by it.
type calendar [fieldCount][]int

// calendarOf reads a calendar of a schedule, whoever has written it.
func calendarOf(spec client.ScheduleCalendarSpec) (c calendar) {
	for i, field := range timeFields {
		ranges := *field.ranges(&spec)
		if i == yearField && len(ranges) == 0 {
			ranges = []client.ScheduleRange{{Start: field.lowest, End: field.highest}}
		}
		for _, r := range ranges {
			last := min(max(r.Start, r.End), field.highest)
			c[i] = append(c[i], counted(max(r.Start, field.lowest), last, max(r.Step, 1))...)
		}
		c[i] = inOrder(c[i])
	}
	return c
}

// spec writes a calendar for a schedule.
func (c calendar) spec() (spec client.ScheduleCalendarSpec) {
	for i, field := range timeFields {
		if i == yearField && field.isFull(c[i]) {
			continue // none is all
		}
		*field.ranges(&spec) = field.rangesOf(c[i])
	}
	return spec
}

func (f timeField) rangesOf(values []int) (ranges []client.ScheduleRange) {
	if step, found := f.stepOf(values); found {
		return []client.ScheduleRange{{Start: f.lowest, End: f.highest, Step: step}}
	}
	for _, run := range runsOf(values) {
		ranges = append(ranges, client.ScheduleRange{Start: run[0], End: run[len(run)-1], Step: 1})
	}
	return ranges
}

func counted(first, last, step int) (values []int) {
	for value := first; value <= last; value += step {
		values = append(values, value)
	}
	return values
}

func inOrder(values []int) []int {
	slices.Sort(values)
	return slices.Compact(values)
}

// predefinedCrons are those that Temporal knows.
var predefinedCrons = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
	"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

// parseCron reads a cron expression as Temporal does: day of the month and day
// of the week must both match. It isn't left to Temporal, so that what is shown
// is what is sent: server 1.29 takes the weekdays 1-7 for 1-6.
func parseCron(text string) (c calendar, err error) {
	if predefined, found := predefinedCrons[text]; found {
		text = predefined
	}
	parts := strings.Fields(text)
	switch len(parts) {
	case 5:
		parts = append(append([]string{"0"}, parts...), "*")
	case 6:
		parts = append([]string{"0"}, parts...)
	case 7:
	default:
		return c, fmt.Errorf("%q has %d fields; there must be 5 (minute, hour, day, month, weekday), 6 (and year) or 7 (second first)", text, len(parts))
	}
	for i, part := range parts {
		if c[i], err = timeFields[i].parse(part); err != nil {
			return c, fmt.Errorf("%q: the %s %q %w", text, timeFields[i].name, part, err)
		}
	}
	return c, nil
}

// parse reads a list such as "1-5/2,8".
func (f timeField) parse(list string) (values []int, err error) {
	highest := f.highest
	if f.isWeekday() {
		highest = 7 // is Sunday, too
	}
	for part := range strings.SplitSeq(list, ",") {
		read, err := f.parseRange(part, highest)
		if err != nil {
			return nil, err
		}
		values = append(values, read...)
	}
	if f.isWeekday() {
		for i := range values {
			values[i] %= 7
		}
	}
	return inOrder(values), nil
}

func (f timeField) isWeekday() bool { return f.lowest == 0 && f.highest == 6 }

// parseRange reads *, x, x-z, and these with a step; x/y goes on to the highest.
func (f timeField) parseRange(text string, highest int) ([]int, error) {
	span, stepText, stepped := strings.Cut(text, "/")
	step := 1
	if stepped {
		var err error
		if step, err = strconv.Atoi(stepText); err != nil || step < 1 {
			return nil, fmt.Errorf("has the step %q, which must be 1 or more", stepText)
		}
	}
	if span == "*" {
		return counted(f.lowest, highest, step), nil
	}
	firstText, lastText, isRange := strings.Cut(span, "-")
	first, err := f.parseValue(firstText, highest)
	if err != nil {
		return nil, err
	}
	last := first
	switch {
	case isRange:
		if last, err = f.parseValue(lastText, highest); err != nil {
			return nil, err
		}
	case stepped:
		last = highest
	}
	if last < first {
		return nil, fmt.Errorf("ends before it begins")
	}
	return counted(first, last, step), nil
}

func (f timeField) parseValue(text string, highest int) (int, error) {
	if len(text) >= f.shortestName {
		for i, name := range f.names {
			if strings.HasPrefix(strings.ToLower(name), strings.ToLower(text)) {
				return f.lowest + i, nil
			}
		}
	}
	value, err := strconv.Atoi(text)
	if err != nil || value < f.lowest || value > highest {
		return 0, fmt.Errorf("must be %d to %d", f.lowest, f.highest)
	}
	return value, nil
}

// cron writes a calendar as an expression of as few fields as will do.
func (c calendar) cron() string {
	parts := make([]string, fieldCount)
	for i, field := range timeFields {
		parts[i] = field.cron(c[i])
	}
	switch {
	case parts[secondField] != "0":
		return strings.Join(parts, " ")
	case parts[yearField] != "*":
		return strings.Join(parts[minuteField:], " ")
	default:
		return strings.Join(parts[minuteField:yearField], " ")
	}
}

func (f timeField) cron(values []int) string {
	if f.isFull(values) {
		return "*"
	}
	if step, found := f.stepOf(values); found {
		return fmt.Sprintf("*/%d", step)
	}
	return joinRuns(values, "-", ",", strconv.Itoa)
}

func (f timeField) isFull(values []int) bool { return len(values) == f.highest-f.lowest+1 }

// stepOf finds the step of values that are spread evenly over the field.
func (f timeField) stepOf(values []int) (step int, found bool) {
	if len(values) < 3 || values[0] != f.lowest {
		return 0, false
	}
	step = values[1] - values[0]
	return step, step > 1 && slices.Equal(values, counted(f.lowest, f.highest, step))
}

// joinRuns joins values, three and more in a row as a range.
func joinRuns(values []int, to, and string, name func(int) string) string {
	var parts []string
	for _, run := range runsOf(values) {
		if len(run) >= 3 {
			parts = append(parts, name(run[0])+to+name(run[len(run)-1]))
			continue
		}
		for _, value := range run {
			parts = append(parts, name(value))
		}
	}
	return strings.Join(parts, and)
}

// runsOf splits values into those that are in a row.
func runsOf(values []int) (runs [][]int) {
	for len(values) > 0 {
		length := 1
		for length < len(values) && values[length] == values[0]+length {
			length++
		}
		runs, values = append(runs, values[:length]), values[length:]
	}
	return runs
}

// maxTimesOfDay is how many times a day are told in words.
const maxTimesOfDay = 4

// words tells the calendar to a person, and as cron.
func (c calendar) words() string {
	for _, values := range c {
		if len(values) == 0 {
			return "never"
		}
	}
	cron := "cron " + c.cron()
	if len(c[secondField])*len(c[minuteField])*len(c[hourField]) > maxTimesOfDay {
		return cron
	}
	return fmt.Sprintf("at %s %s (%s)", c.timesOfDay(), c.days(), cron)
}

func (c calendar) timesOfDay() string {
	var times []string
	for _, hour := range c[hourField] {
		for _, minute := range c[minuteField] {
			for _, second := range c[secondField] {
				times = append(times, strings.TrimSuffix(fmt.Sprintf("%02d:%02d:%02d", hour, minute, second), ":00"))
			}
		}
	}
	return strings.Join(times, ", ")
}

func (c calendar) days() string {
	everyDay, everyWeekday := timeFields[dayField].isFull(c[dayField]), timeFields[weekdayField].isFull(c[weekdayField])
	everyMonth, everyYear := timeFields[monthField].isFull(c[monthField]), timeFields[yearField].isFull(c[yearField])
	words := "every day"
	if !everyWeekday {
		words = "on " + c.list(weekdayField)
	}
	switch {
	case everyDay:
	case everyWeekday:
		words = "on " + c.numberedDays()
	default:
		words += ", if it is " + c.numberedDays()
	}
	switch {
	case !everyMonth && everyDay:
		words += " in " + c.list(monthField)
	case !everyMonth:
		words += " of " + c.list(monthField)
	case !everyDay:
		words += " of every month"
	}
	if !everyYear {
		words += ", only in " + c.list(yearField)
	}
	return words
}

func (c calendar) numberedDays() string {
	if len(c[dayField]) == 1 {
		return "day " + c.list(dayField)
	}
	return "one of the days " + c.list(dayField)
}

func (c calendar) list(field int) string {
	f := timeFields[field]
	return joinRuns(c[field], " to ", ", ", func(value int) string {
		if f.names == nil {
			return strconv.Itoa(value)
		}
		return f.names[value-f.lowest]
	})
}

// intervalWords tells of times that are counted from the epoch on.
func intervalWords(interval client.ScheduleIntervalSpec) string {
	words := "every " + plainDuration(interval.Every)
	if days := interval.Every.Hours() / 24; days >= 2 && days == float64(int(days)) {
		words += fmt.Sprintf(" (%d days)", int(days))
	}
	if interval.Offset != 0 {
		words += ", offset " + plainDuration(interval.Offset)
	}
	return words
}

// plainDuration is a duration without units that are zero: 2160h.
func plainDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// timesWords are the times of a schedule in words, whatever their order was.
func timesWords(spec *client.ScheduleSpec) string {
	var all []string
	for _, written := range spec.Calendars {
		all = append(all, calendarOf(written).words())
	}
	for _, interval := range spec.Intervals {
		all = append(all, intervalWords(interval))
	}
	if len(all) == 0 {
		return "never by itself"
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "; ")
}

// limitsWords are what takes times away, which the Web UI can set.
func limitsWords(spec *client.ScheduleSpec) string {
	var limits []string
	for _, skipped := range spec.Skip {
		limits = append(limits, "but not "+calendarOf(skipped).words())
	}
	if !spec.StartAt.IsZero() {
		limits = append(limits, "from "+timeText(&spec.StartAt))
	}
	if !spec.EndAt.IsZero() {
		limits = append(limits, "until "+timeText(&spec.EndAt))
	}
	return strings.Join(limits, "; ")
}

// nextTimeText shows a time as the clocks of the zone do, and in UTC.
func nextTimeText(t time.Time, zone string) string {
	const weekdayAndTime = "Mon 2006-01-02 15:04:05 MST"
	location, err := time.LoadLocation(zone)
	if err != nil || location == time.UTC {
		return t.UTC().Format(weekdayAndTime)
	}
	return fmt.Sprintf("%s (%s)", t.In(location).Format(weekdayAndTime), timeText(&t))
}

func nextTimeTexts(times []time.Time, zone string, most int) []string {
	var texts []string
	for _, t := range times[:min(most, len(times))] {
		texts = append(texts, nextTimeText(t, zone))
	}
	return texts
}
