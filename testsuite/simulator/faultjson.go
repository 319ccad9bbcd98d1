package simulator

import (
	"bytes"
	"encoding/json"
	"time"
)

// jsonDuration is written as "1.5s".
type jsonDuration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d jsonDuration) MarshalText() ([]byte, error) {
	return []byte(time.Duration(d).String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *jsonDuration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = jsonDuration(parsed)
	return err
}

// plainFault is Fault without its methods.
type plainFault Fault

// faultJSON has the durations of a fault in the place of the plain ones: fields
// of the outer struct hide those of the inner.
type faultJSON struct {
	plainFault
	ApplyAfter jsonDuration `json:"applyAfter,omitzero"`
	ShowAfter  jsonDuration `json:"showAfter,omitzero"`
	Delay      jsonDuration `json:"delay,omitzero"`
}

// MarshalJSON implements json.Marshaler.
func (f Fault) MarshalJSON() ([]byte, error) {
	return json.Marshal(faultJSON{
		plainFault: plainFault(f),
		ApplyAfter: jsonDuration(f.ApplyAfter), ShowAfter: jsonDuration(f.ShowAfter), Delay: jsonDuration(f.Delay),
	})
}

// UnmarshalJSON implements json.Unmarshaler. It refuses unknown fields.
func (f *Fault) UnmarshalJSON(text []byte) error {
	var read faultJSON
	if err := decodeStrictly(text, &read); err != nil {
		return err
	}
	*f = Fault(read.plainFault)
	f.ApplyAfter, f.ShowAfter, f.Delay =
		time.Duration(read.ApplyAfter), time.Duration(read.ShowAfter), time.Duration(read.Delay)
	return nil
}

func decodeStrictly(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}
