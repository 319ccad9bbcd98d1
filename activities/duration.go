package activities

import (
	"encoding/json"
	"fmt"
	"time"
)

// Duration is a time.Duration that JSON shows as Go does: "1h30m", "500ms".
type Duration time.Duration

// Std is the duration as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON gives the duration as a string.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON takes a string in Go's syntax.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf(`a duration is a string such as "15m"`)
	}
	parsed, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf(`a duration is a string such as "15m"`)
	}
	*d = Duration(parsed)
	return nil
}
