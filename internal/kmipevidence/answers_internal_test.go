package kmipevidence

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/payloads"
	"github.com/ovh/kmip-go/ttlv"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// canned is a server whose answer is fixed.
type canned struct{ *bytes.Reader }

func (canned) Write(content []byte) (int, error) { return len(content), nil }
func (canned) Close() error                      { return nil }

// TestMalformedAnswersAreErrors changes bytes of a good answer: whatever comes,
// it must end as an error or as an answer, not as a panic of the worker.
func TestMalformedAnswersAreErrors(t *testing.T) {
	good := ttlv.MarshalTTLV(&kmip.ResponseMessage{
		Header: kmip.ResponseHeader{ProtocolVersion: kmip.V1_2, TimeStamp: time.Now(), BatchCount: 1},
		BatchItem: []kmip.ResponseBatchItem{{
			Operation: kmip.OperationGetAttributes,
			ResponsePayload: &payloads.GetAttributesResponsePayload{UniqueIdentifier: "1", Attribute: []kmip.Attribute{
				{AttributeName: kmip.AttributeNameState, AttributeValue: kmip.StateActive},
				{AttributeName: kmip.AttributeNameInitialDate, AttributeValue: time.Now()},
				{AttributeName: kmip.AttributeNameCryptographicLength, AttributeValue: int32(256)},
				{AttributeName: kmip.AttributeNameName, AttributeValue: kmip.Name{NameValue: "key", NameType: kmip.NameTypeUninterpretedTextString}},
			}},
		}},
	})
	request := kmip.NewRequestMessage(kmip.V1_2, queryOperations())
	exchange := func(answer []byte) (*kmip.ResponseMessage, error) {
		conn := &connection{stream: ttlv.NewStream(canned{bytes.NewReader(answer)}, maxAnswerSize)}
		return conn.exchange(&request)
	}
	response, err := exchange(good)
	require.NoError(t, err)
	require.Len(t, response.BatchItem, 1)

	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same in each run
	failed := 0
	for range 5_000 {
		changed := bytes.Clone(good)
		for range 1 + random.IntN(3) {
			changed[random.IntN(len(changed))] = byte(random.IntN(256))
		}
		changed = changed[:len(changed)-random.IntN(2)*random.IntN(len(changed))]
		var response *kmip.ResponseMessage
		require.NotPanics(t, func() { response, err = exchange(changed) }, "%x", changed)
		if err != nil {
			failed++
			continue
		}
		for _, item := range response.BatchItem {
			if answer, ok := item.ResponsePayload.(*payloads.GetAttributesResponsePayload); ok {
				require.NotPanics(t, func() { new(Evidence).add(answer.Attribute) }, "%x", changed)
			}
		}
	}
	assert.Positive(t, failed)
	_, err = exchange(append([]byte{0x42, 0x00, 0x7b, 1, 0x7f, 0xff, 0xff, 0xff}, good...))
	assert.ErrorContains(t, err, "too big")
}
