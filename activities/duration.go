package activities

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// Duration is a time.Duration that can also be written in days: "15m", "90d",
// "1d12h". It is a string in JSON. [ParseDuration] describes the syntax.
type Duration time.Duration

// day is always 24 hours; daylight saving time changes nothing.
const day = 24 * time.Hour

// Std returns d as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns the shortest form that [ParseDuration] reads back as d: units
// of zero are left out, and 24 hours or more are given in days ("7d", "1d12h",
// "1h30m", "0s").
func (d Duration) String() string {
	days, rest := time.Duration(d)/day, time.Duration(d)%day
	if days == 0 {
		return withoutZeroUnits(rest)
	}
	text := fmt.Sprintf("%dd", days)
	if rest != 0 {
		text += strings.TrimPrefix(withoutZeroUnits(rest), "-") // the sign is that of the days
	}
	return text
}

// withoutZeroUnits shortens "1h0m0s" to "1h".
func withoutZeroUnits(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// ParseDuration reads a duration in Go's syntax (see [time.ParseDuration]) that
// may start with days: "90d", "1d12h", "1.5d", "-2d". A day is 24 hours. Days
// come first and once. The largest duration is about 106,751 days (292 years);
// a longer one is an error.
func ParseDuration(text string) (Duration, error) {
	days, rest, hasDays := strings.Cut(text, "d")
	if !hasDays {
		d, err := time.ParseDuration(text)
		if err != nil {
			return 0, errDuration
		}
		return Duration(d), nil
	}
	number := strings.TrimLeft(days, "+-")
	if strings.Trim(number, "0123456789.") != "" {
		return 0, errDuration
	}
	// Go's parser reads the number, its sign and its fraction, as hours.
	hours, err := time.ParseDuration(days + "h")
	if err != nil || hours.Abs() > math.MaxInt64/24 {
		return 0, errDuration
	}
	total := hours * 24
	if rest != "" {
		if total, err = addRest(total, rest, strings.HasPrefix(days, "-")); err != nil {
			return 0, err
		}
	}
	return Duration(total), nil
}

// addRest adds what follows the days. The sign in front of the days is the whole
// duration's.
func addRest(days time.Duration, rest string, negative bool) (time.Duration, error) {
	added, err := time.ParseDuration(rest)
	if err != nil || strings.ContainsAny(rest[:1], "+-") {
		return 0, errDuration
	}
	if negative {
		added = -added
	}
	total := days + added
	if overflowed := (total < days) != (added < 0); overflowed {
		return 0, errDuration
	}
	return total, nil
}

var errDuration = errors.New(`must be a duration such as "15m", "1h30m" or "90d"`)

// Set reads what [ParseDuration] takes. With String and Type it makes a *Duration
// a flag's value.
func (d *Duration) Set(text string) (err error) {
	*d, err = ParseDuration(text)
	return err
}

// Type is the name of the value in a command's help.
func (d *Duration) Type() string { return "duration" }

// MarshalJSON returns a string in Go's syntax, without days: workers of any
// version read it, and the stored inputs of schedules stay the same.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.Std().String()) }

// UnmarshalJSON reads a string that [ParseDuration] takes.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) != nil {
		return errDuration
	}
	return d.Set(text)
}
