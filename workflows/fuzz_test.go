package workflows

import (
	"time"

	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
)

func rawJSON(text string) converter.RawValue {
	return converter.NewRawValue(&commonpb.Payload{
		Metadata: map[string][]byte{converter.MetadataEncoding: []byte(converter.MetadataEncodingJSON)}, Data: []byte(text),
	})
}

// An input is either refused in words that fit a line, or it is complete and
// means the same when a Go program writes it down again.
func FuzzInput(f *testing.F) {
	const ids = `"projectId":"5196d3628d022db4cbc26d9e","clusterId":"5196e5b0e4b0fca9cc88334a"`
	for _, seed := range []string{
		`{` + ids + `}`, `{}`, `null`, `[]`, `7`, `"x"`, ``, `{` + ids, `{` + ids + `,` + ids + `}`,
		`{` + ids + `,"connection":"default","concurrency":4,"dryRun":false,"requireApproval":false,"approvalTimeout":"72h","expectedTargets":0,"onFailure":"hold","holdTimeout":"168h","retryTimeout":"30m","settleTime":"30s","verifyTimeout":"15m","change":{"ticket":"CHG0031337","requestedBy":"dana","reason":"quarterly"},"completed":[]}`,
		`{` + ids + `,"completed":[{"clusterId":"5196e5b0e4b0fca9cc88334a","name":"orders-0","role":"shard","status":"verified","previousKeyUUID":"a","newKeyUUID":"b","rotatedAt":"2026-11-23T16:00:00Z","verifiedAt":null,"attempts":1,"ambiguous":false,"carriedOver":false,"error":{"type":"x","message":"y"}}]}`,
		`{` + ids + `,"concurrency":1e1}`, `{` + ids + `,"concurrency":99999999999999999999}`, `{` + ids + `,"settleTime":"1h1h"}`,
		`{"\u0000":1,"` + strings.Repeat("[", 100) + `":1}`, `{` + ids + `,"change":{"reason":"\ud800"}}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		input, err := parseRotateClusterInput(rawJSON(text), time.Now())
		if err != nil {
			if message := err.Error(); len(message) > 8000 || strings.ContainsFunc(message, unicode.IsControl) {
				t.Fatalf("not fit for a log: %q", message)
			}
			return
		}
		written, err := json.Marshal(input)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseRotateClusterInput(rawJSON(string(written)), time.Now())
		if err != nil {
			t.Fatalf("%s: %v", written, err)
		}
		if input.RetryTimeout == 0 { // in Go, zero means the default
			input.RetryTimeout = again.RetryTimeout
		}
		if input.SettleTime == 0 {
			input.SettleTime = again.SettleTime
		}
		if len(input.Completed) == 0 {
			input.Completed = again.Completed
		}
		if !reflect.DeepEqual(input, again) {
			t.Fatalf("%+v became %+v", input, again)
		}
	})
}
