package ledgerentry

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBodyIsReadAsItWasMade(t *testing.T) {
	type result struct {
		Outcome string `json:"outcome"`
		Known   string `json:"known"`
	}
	type written struct {
		Outcome string `json:"outcome"`
	}
	aborted := &RotationError{Type: "Aborted", Message: "aborted by dana"}
	text, err := NewBody(written{"partial"}, aborted, "")
	require.NoError(t, err)
	assert.JSONEq(t, `{"result": {"outcome": "partial"}, "error": {"type": "Aborted", "message": "aborted by dana"}}`, string(text))
	read := result{"replaced", "stays"}
	failure, err := ReadBody(text, &read)
	require.NoError(t, err)
	assert.Equal(t, result{"partial", "stays"}, read)
	assert.Equal(t, aborted, failure)

	text, err = NewBody(nil, nil, "rotate-fleet:default")
	require.NoError(t, err)
	assert.JSONEq(t, `{"result": {}, "error": null, "startedBy": "rotate-fleet:default"}`, string(text))
	assert.Equal(t, "rotate-fleet:default", StartedBy(text))
	assert.Empty(t, StartedBy([]byte(`{"result": {"startedBy": "x"}, "error": null}`)))
	failure, err = ReadBody(text, &read)
	require.NoError(t, err)
	assert.Nil(t, failure)

	for _, text := range []string{`{"error": null}`, `{"result": 1, "error": null}`, `{"result": {}`, `1`} {
		_, err = ReadBody(json.RawMessage(text), &read)
		assert.Error(t, err, text)
	}
}
