package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
)

func TestCronsAreReadAndShownInWords(t *testing.T) {
	for text, want := range map[string]string{
		"0 2 1 */3 *":            "at 02:00 on day 1, in January, April, July, October (cron 0 2 1 */3 *)",
		"0 2 1 JAN,apr,7,10 0-7": "at 02:00 on day 1, in January, April, July, October (cron 0 2 1 */3 *)",
		"0 2 1 1/3 *":            "at 02:00 on day 1, in January, April, July, October (cron 0 2 1 */3 *)",
		"0 22 1-7 */3 SAT":       "at 22:00 on Saturday, on day 1 to 7, in January, April, July, October (cron 0 22 1-7 */3 6)",
		"0 22 13 * fri":          "at 22:00 on Friday, on day 13 (cron 0 22 13 * 5)",
		"15 4 * * mon-friday":    "at 04:15 on Monday to Friday (cron 15 4 * * 1-5)",
		"15 4 * * 5-7":           "at 04:15 on Sunday, Friday, Saturday (cron 15 4 * * 0,5,6)",
		"15 4 * * 1-7":           "at 04:15 every day (cron 15 4 * * *)",
		"15 4 * * 1-7/2":         "at 04:15 on Sunday, Monday, Wednesday, Friday (cron 15 4 * * 0,1,3,5)",
		"15 4 * * */2":           "at 04:15 on Sunday, Tuesday, Thursday, Saturday (cron 15 4 * * */2)",
		"0 2 * 12 *":             "at 02:00 in December (cron 0 2 * 12 *)",
		"0 2,14 1,15 * *":        "at 02:00, 14:00 on day 1, 15 (cron 0 2,14 1,15 * *)",
		"0 2 1 6 * 2098-2099":    "at 02:00 on day 1, in June, in 2098, 2099 (cron 0 2 1 6 * 2098,2099)",
		"30 0 2 * * * *":         "at 02:00:30 every day (cron 30 0 2 * * * *)",
		"*/5 * * * *":            "cron */5 * * * *",
		"@yearly":                "at 00:00 on day 1, in January (cron 0 0 1 1 *)",
		"@weekly":                "at 00:00 on Sunday (cron 0 0 * * 0)",
		"@hourly":                "cron 0 * * * *",
	} {
		spec, err := parseCron(text)
		require.NoError(t, err)
		c := calendarOf(spec)
		assert.Equal(t, want, c.text())
		again, err := parseCron(c.cron())
		require.NoError(t, err)
		assert.Equal(t, c, calendarOf(again))
		for _, r := range spec.DayOfWeek {
			assert.LessOrEqual(t, r.End, 6, "%s: Temporal 1.29 misreads 7", text)
		}
	}
}

func TestWhatIsNoCron(t *testing.T) {
	for _, text := range []string{
		"", "daily", "@reboot", "0 2 1 *", "0 2 1 * * * * *", "60 2 * * *", "0 24 * * *", "0 2 0 * *", "0 2 32 * *", "0 2 * 13 *", "0 2 * * 8", "0 2 * * * 1999",
		"0 2 5-1 * *", "0 2 */0 * *", "0 2 */x * *", "0 2 1/2/3 * *", "0 2 1-2-3 * *", "0 2 1, * *", "0 2 -1 * *", "0 2 * ja *", "0 2 * * s", "0 2 ? * *", "x 2 * * *",
		"0 2 * * * # comment",
	} {
		_, err := parseCron(text)
		assert.Error(t, err, text)
	}
}

func TestCronsThatNeverRunAreRefused(t *testing.T) {
	for _, text := range []string{"0 2 30 2 *", "0 2 31 4,6,9,11 *", "0 2 * * * 2001", "0 2 29 2 * 2099", "0 2 1 1 sun 2098"} {
		_, err := parseCron(text)
		assert.ErrorContains(t, err, "never runs", text)
	}
	for _, text := range []string{"0 2 29 2 *", "0 2 29 2 mon", "0 2 31 * *", "0 2 * * * 2100", "0 2 1 1 wed 2098"} {
		_, err := parseCron(text)
		assert.NoError(t, err, text)
	}
}

func TestCalendarsOfTheWebUIAreShownAlike(t *testing.T) {
	one := func(start int) []client.ScheduleRange {
		return []client.ScheduleRange{{Start: start, End: start, Step: 1}}
	}
	all := func(start, end int) []client.ScheduleRange {
		return []client.ScheduleRange{{Start: start, End: end, Step: 1}}
	}
	spec := client.ScheduleCalendarSpec{
		Second: one(0), Minute: one(0), Hour: one(2), DayOfMonth: one(1), Month: []client.ScheduleRange{{Start: 1, End: 12, Step: 3}}, DayOfWeek: all(0, 6),
	}
	assert.Equal(t, "0 2 1 */3 *", calendarOf(spec).cron())
	spec.Year = one(2027)
	assert.Equal(t, "0 2 1 */3 * 2027", calendarOf(spec).cron())
	spec.DayOfMonth = nil
	assert.Equal(t, "never", calendarOf(spec).text())
	// Values that Temporal would refuse must do no harm here.
	spec.DayOfMonth = []client.ScheduleRange{{Start: -5, End: 1 << 30, Step: -1}}
	assert.Equal(t, "0 2 * */3 * 2027", calendarOf(spec).cron())
}

func TestTimesDoNotDependOnTheirOrder(t *testing.T) {
	spec := &client.ScheduleSpec{
		Calendars: []client.ScheduleCalendarSpec{mustHave(parseCron("0 2 1 6 *")), mustHave(parseCron("0 2 1 1 *")), mustHave(parseCron("0 2 1 1 *"))},
		Intervals: []client.ScheduleIntervalSpec{{Every: 36 * time.Hour}, {Every: 2160 * time.Hour, Offset: 90 * time.Minute}},
	}
	want := "at 02:00 on day 1, in January (cron 0 2 1 1 *); at 02:00 on day 1, in June (cron 0 2 1 6 *); every 1d12h; every 90d, offset 1h30m"
	assert.Equal(t, want, timesText(spec))
	assert.Equal(t, "never", timesText(&client.ScheduleSpec{}))
}

func TestLimitsAreShown(t *testing.T) {
	spec := &client.ScheduleSpec{
		StartAt: began, EndAt: *at(60),
		Skip: []client.ScheduleCalendarSpec{{
			Second: []client.ScheduleRange{{}}, Minute: []client.ScheduleRange{{}}, Hour: []client.ScheduleRange{{Start: 2}},
			DayOfMonth: []client.ScheduleRange{{Start: 24}}, Month: []client.ScheduleRange{{Start: 12}}, DayOfWeek: []client.ScheduleRange{{Start: 0, End: 6}},
		}},
	}
	want := "never, but not at 02:00 on day 24, in December (cron 0 2 24 12 *), from 2026-03-01T12:00:00Z, until 2026-03-01T12:01:00Z"
	assert.Equal(t, want, timesText(spec))
}

func TestNextTimesAreShownInTheTimeZone(t *testing.T) {
	for zone, want := range map[string]string{
		"Europe/Berlin": "Sun 2026-03-01 13:00:00 CET (2026-03-01T12:00:00Z)",
		"UTC":           "Sun 2026-03-01 12:00:00 UTC",
		"Not/Known":     "Sun 2026-03-01 12:00:00 UTC",
	} {
		assert.Equal(t, want, nextTimeText(began, zone))
	}
}
