package retryafter

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestParse(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	text := func(at time.Time) string { return at.Format(http.TimeFormat) }
	const most = time.Hour
	for name, c := range map[string]struct {
		retryAfter, date string
		want             time.Duration
	}{
		"missing":                         {"", "", 0},
		"no number":                       {"soon", "", 0},
		"a fraction":                      {"1.5", "", 0},
		"seconds":                         {" 20 ", "", 20 * time.Second},
		"none":                            {"0", "", 0},
		"less than none":                  {"-20", "", 0},
		"too many":                        {"3601", "", most},
		"more than a duration has":        {"9223372037", "", most},
		"more than a number has":          {"99999999999999999999", "", most},
		"less than a number has":          {"-99999999999999999999", "", 0},
		"a date":                          {text(now.Add(time.Minute)), "", time.Minute},
		"a date that has passed":          {text(now.Add(-time.Minute)), "", 0},
		"a date in years":                 {text(now.AddDate(300, 0, 0)), "", most},
		"a date of a clock that is ahead": {text(now.Add(11 * time.Minute)), text(now.Add(10 * time.Minute)), time.Minute},
		"a date without a clock":          {text(now.Add(time.Minute)), "yesterday", time.Minute},
	} {
		header := http.Header{}
		header.Set("Retry-After", c.retryAfter)
		header.Set("Date", c.date)
		assert.Equal(t, c.want, Parse(header, now, most), name)
	}
}
