package ledgerentry

import (
	"encoding/json"
	"errors"
	"fmt"
)

// body is what a rotation's [Record.Body] has.
type body[Result any] struct {
	// Result is the workflow's result, or that in the details of its failure. It
	// is {} if the workflow left none.
	Result Result `json:"result"`
	// Error is why the workflow failed; nil if it succeeded.
	Error *RotationError `json:"error"`
	// StartedBy is the ID of the workflow that started the rotation's, such as a
	// fleet's; empty if none did, and in entries of earlier versions.
	StartedBy string `json:"startedBy,omitempty"`
}

// RotationError is the error with which a rotation ended.
type RotationError struct {
	Type    string `json:"type"`    // the type of the application error
	Message string `json:"message"` // what failed, and what to do
}

// NewBody returns the JSON of a body for a [Record]; a nil result is {}. startedBy is the
// ID of the workflow that started the rotation's; empty = none did.
func NewBody(result any, failure *RotationError, startedBy string) (json.RawMessage, error) {
	if result == nil {
		result = struct{}{}
	}
	return json.Marshal(body[any]{result, failure, startedBy})
}

// ReadBody reads the body of an entry: the result into a pointer to the workflow's
// result type, whose fields stay where the result has none, and the error with which
// the rotation ended; nil if it succeeded.
func ReadBody(text json.RawMessage, result any) (*RotationError, error) {
	read := body[resultReader]{Result: resultReader{into: result}}
	if err := json.Unmarshal(text, &read); err != nil {
		return nil, fmt.Errorf("the entry's body cannot be read: %w", err)
	}
	if !read.Result.isThere {
		return nil, errors.New("the entry's body has no result")
	}
	return read.Error, nil
}

// StartedBy is the ID of the workflow that started the one of an entry; empty = none
// did, or it is not known.
func StartedBy(text json.RawMessage) string {
	var read body[json.RawMessage]
	if json.Unmarshal(text, &read) != nil {
		return ""
	}
	return read.StartedBy
}

// resultReader reads a result, and notes that there is one.
type resultReader struct {
	into    any
	isThere bool
}

// UnmarshalJSON reads the result.
func (r *resultReader) UnmarshalJSON(text []byte) error {
	r.isThere = true
	return json.Unmarshal(text, r.into)
}
