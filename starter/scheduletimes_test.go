package main

import (
	"reflect"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
)

func TestCronsAreReadAndToldInWords(t *testing.T) {
	for text, want := range map[string]string{
		"0 2 1 */3 *":            "at 02:00 on day 1 of January, April, July, October (cron 0 2 1 */3 *)",
		"0 2 1 JAN,apr,7,10 0-7": "at 02:00 on day 1 of January, April, July, October (cron 0 2 1 */3 *)",
		"0 2 1 1/3 *":            "at 02:00 on day 1 of January, April, July, October (cron 0 2 1 */3 *)",
		"0 22 1-7 */3 SAT":       "at 22:00 on Saturday, if it is one of the days 1 to 7 of January, April, July, October (cron 0 22 1-7 */3 6)",
		"0 22 13 * fri":          "at 22:00 on Friday, if it is day 13 of every month (cron 0 22 13 * 5)",
		"15 4 * * mon-friday":    "at 04:15 on Monday to Friday (cron 15 4 * * 1-5)",
		"15 4 * * 5-7":           "at 04:15 on Sunday, Friday, Saturday (cron 15 4 * * 0,5,6)",
		"15 4 * * 1-7":           "at 04:15 every day (cron 15 4 * * *)",
		"15 4 * * 1-7/2":         "at 04:15 on Sunday, Monday, Wednesday, Friday (cron 15 4 * * 0,1,3,5)",
		"15 4 * * */2":           "at 04:15 on Sunday, Tuesday, Thursday, Saturday (cron 15 4 * * */2)",
		"0 2 * 12 *":             "at 02:00 every day in December (cron 0 2 * 12 *)",
		"0 2,14 1,15 * *":        "at 02:00, 14:00 on one of the days 1, 15 of every month (cron 0 2,14 1,15 * *)",
		"0 2 1 6 * 2027-2028":    "at 02:00 on day 1 of June, only in 2027, 2028 (cron 0 2 1 6 * 2027,2028)",
		"30 0 2 * * * *":         "at 02:00:30 every day (cron 30 0 2 * * * *)",
		"*/5 * * * *":            "cron */5 * * * *",
		"@yearly":                "at 00:00 on day 1 of January (cron 0 0 1 1 *)",
		"@weekly":                "at 00:00 on Sunday (cron 0 0 * * 0)",
		"@hourly":                "cron 0 * * * *",
	} {
		c, err := parseCron(text)
		if err != nil || c.words() != want {
			t.Errorf("%q: got %q, %v, want %q", text, c.words(), err, want)
		}
		if sent := calendarOf(c.spec()); !reflect.DeepEqual(sent, c) {
			t.Errorf("%q is sent as %+v", text, sent)
		}
		again, err := parseCron(c.cron())
		if err != nil || again.cron() != c.cron() {
			t.Errorf("%q is read as %q and then as %q, %v", text, c.cron(), again.cron(), err)
		}
	}
}

func TestWhatIsNoCron(t *testing.T) {
	for _, text := range []string{
		"", "daily", "@reboot", "0 2 1 *", "0 2 1 * * * * *", "60 2 * * *", "0 24 * * *", "0 2 0 * *", "0 2 32 * *", "0 2 * 13 *", "0 2 * * 8", "0 2 * * * 1999",
		"0 2 5-1 * *", "0 2 */0 * *", "0 2 */x * *", "0 2 1/2/3 * *", "0 2 1-2-3 * *", "0 2 1, * *", "0 2 -1 * *", "0 2 * ja *", "0 2 * * s", "0 2 ? * *", "x 2 * * *",
		"0 2 * * * # comment",
	} {
		if c, err := parseCron(text); err == nil {
			t.Errorf("%q is read as %q", text, c.cron())
		}
	}
}

func TestCalendarsOfTheWebUIAreToldAlike(t *testing.T) {
	one := func(start int) []client.ScheduleRange {
		return []client.ScheduleRange{{Start: start, End: start, Step: 1}}
	}
	all := func(start, end int) []client.ScheduleRange {
		return []client.ScheduleRange{{Start: start, End: end, Step: 1}}
	}
	spec := client.ScheduleCalendarSpec{
		Second: one(0), Minute: one(0), Hour: one(2), DayOfMonth: one(1), Month: []client.ScheduleRange{{Start: 1, End: 12, Step: 3}}, DayOfWeek: all(0, 6),
	}
	if got := calendarOf(spec).cron(); got != "0 2 1 */3 *" {
		t.Errorf("got %q", got)
	}
	spec.Year = one(2027)
	if got := calendarOf(spec).cron(); got != "0 2 1 */3 * 2027" {
		t.Errorf("got %q", got)
	}
	spec.DayOfMonth = nil
	if got := calendarOf(spec).words(); got != "never" {
		t.Errorf("got %q", got)
	}
	// Values that Temporal would refuse must do no harm here.
	spec.DayOfMonth = []client.ScheduleRange{{Start: -5, End: 1 << 30, Step: -1}}
	if got := calendarOf(spec).cron(); got != "0 2 * */3 * 2027" {
		t.Errorf("got %q", got)
	}
}

func TestTimesAreToldWhateverTheirOrder(t *testing.T) {
	spec := &client.ScheduleSpec{
		Calendars: calendarsOf([]string{"0 2 1 6 *", "0 2 1 1 *", "0 2 1 1 *"}),
		Intervals: []client.ScheduleIntervalSpec{{Every: 36 * time.Hour}, {Every: 2160 * time.Hour, Offset: 90 * time.Minute}},
	}
	want := "at 02:00 on day 1 of January (cron 0 2 1 1 *); at 02:00 on day 1 of June (cron 0 2 1 6 *); every 2160h (90 days), offset 1h30m; every 36h"
	if got := timesWords(spec); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := timesWords(&client.ScheduleSpec{}); got != "never by itself" {
		t.Errorf("got %q", got)
	}
}

func TestLimitsAreTold(t *testing.T) {
	spec := &client.ScheduleSpec{
		StartAt: began, EndAt: *at(60),
		Skip: []client.ScheduleCalendarSpec{{
			Second: []client.ScheduleRange{{}}, Minute: []client.ScheduleRange{{}}, Hour: []client.ScheduleRange{{Start: 2}},
			DayOfMonth: []client.ScheduleRange{{Start: 24}}, Month: []client.ScheduleRange{{Start: 12}}, DayOfWeek: []client.ScheduleRange{{Start: 0, End: 6}},
		}},
	}
	want := "but not at 02:00 on day 24 of December (cron 0 2 24 12 *); from 2026-03-01T12:00:00Z; until 2026-03-01T12:01:00Z"
	if got := limitsWords(spec); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNextTimesAreToldByTheZonesClocks(t *testing.T) {
	for zone, want := range map[string]string{
		"Europe/Berlin": "Sun 2026-03-01 13:00:00 CET (2026-03-01T12:00:00Z)",
		"UTC":           "Sun 2026-03-01 12:00:00 UTC",
		"Not/Known":     "Sun 2026-03-01 12:00:00 UTC",
	} {
		if got := nextTimeText(began, zone); got != want {
			t.Errorf("%s: got %q, want %q", zone, got, want)
		}
	}
}
