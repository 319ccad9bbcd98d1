package activities

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
)

// pack compresses a list that may be too large for Temporal's payloads of 2 MiB. In
// JSON, the bytes become a string of base64.
func pack(list any) ([]byte, error) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false) // six bytes for one, in ids that are opaque
	if err := encoder.Encode(list); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}

// unpack reads what pack made.
func unpack(packed []byte, list any) error {
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return err
	}
	return json.NewDecoder(unpacked).Decode(list)
}
