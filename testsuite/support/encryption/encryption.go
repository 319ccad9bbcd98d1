// Package encryption is a payload codec for tests that hides what it encodes, as that
// of Temporal's samples does.
package encryption

import (
	"bytes"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
)

// Encoding is that of its payloads.
const Encoding = "binary/encrypted"

// Codec is the codec.
type Codec struct{}

// Encode hides payloads.
func (Codec) Encode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	encoded := make([]*commonpb.Payload, len(payloads))
	for i, p := range payloads {
		whole, err := p.Marshal()
		if err != nil {
			return nil, err
		}
		encoded[i] = &commonpb.Payload{Metadata: map[string][]byte{converter.MetadataEncoding: []byte(Encoding)}, Data: inverted(whole)}
	}
	return encoded, nil
}

// Decode shows what Encode has hidden, and leaves other payloads as they are.
func (Codec) Decode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	decoded := make([]*commonpb.Payload, len(payloads))
	for i, p := range payloads {
		decoded[i] = p
		if string(p.GetMetadata()[converter.MetadataEncoding]) == Encoding {
			decoded[i] = &commonpb.Payload{}
			if err := decoded[i].Unmarshal(inverted(p.GetData())); err != nil {
				return nil, err
			}
		}
	}
	return decoded, nil
}

func inverted(text []byte) []byte {
	changed := bytes.Clone(text)
	for i := range changed {
		changed[i] ^= 0xff
	}
	return changed
}

// Options are those of a client that encodes everything, also the details of failures.
func Options(options client.Options) client.Options {
	options.DataConverter = converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), Codec{})
	options.FailureConverter = temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{DataConverter: options.DataConverter})
	return options
}
