package workflows

import (
	"bytes"
	"compress/gzip"
	"encoding/json"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
)

// carriedBy gives what the run before has handed to this one; nil = this one
// continues none. It takes the raw input so that a second one, which only a run
// that continues another may have, is InvalidInput, whatever it is.
//
// What is decoded here is part of the history.
//
//workflowcheck:ignore
func carriedBy[T any](ctx workflow.Context, second converter.RawValue) (carried *T, err error) {
	if second.Payload() == nil {
		return nil, nil
	}
	err = converter.GetDefaultDataConverter().FromPayload(second.Payload(), &carried)
	switch {
	case err == nil && carried == nil:
		return nil, nil
	case workflow.GetInfo(ctx).ContinuedExecutionRunID == "":
		return nil, failure(activities.ErrorInvalidInput, nil, "input: there must be one object, not two")
	case err != nil:
		return nil, unreadable(err)
	}
	return carried, nil
}

func unreadable(err error) error {
	return failure(activities.ErrorInvalidInput, nil, "input: the records of the run before can't be read: %v", err)
}

// packedRecords are records as one run hands them to the next: compressed to a
// third, so that a cluster of a thousand shards stays far below what Temporal
// takes as one payload.
type packedRecords []byte

// Neither function depends on anything but its input, which is part of the
// history: workflowcheck distrusts encoding/json and what gzip is made of.
//
//workflowcheck:ignore
func pack(records []TargetRecord) (packedRecords, error) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if err := json.NewEncoder(w).Encode(records); err != nil {
		return nil, err
	}
	err := w.Close()
	return b.Bytes(), err
}

//workflowcheck:ignore
func (p packedRecords) unpack() (records []TargetRecord, err error) {
	r, err := gzip.NewReader(bytes.NewReader(p))
	if err != nil {
		return nil, err
	}
	err = json.NewDecoder(r).Decode(&records)
	return records, err
}
