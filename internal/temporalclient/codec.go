package temporalclient

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/proxy"
	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keyturn/internal/setting"
)

const (
	codecEndpointVariable = "TEMPORAL_CODEC_ENDPOINT"
	codecAuthVariable     = "TEMPORAL_CODEC_AUTH"

	// codecTimeout is how long a codec may take for one request.
	codecTimeout = 15 * time.Second
	// codecNamespace is replaced by the namespace's name, as in Temporal's own tools.
	codecNamespace = "{namespace}"
)

func (s settings) endpointName() string { return s.name(codecEndpointVariable, "codec", "endpoint") }
func (s settings) authName() string     { return s.name(codecAuthVariable, "codec", "auth") }

func (s settings) checkCodec() error {
	codec := s.profile.Codec
	switch {
	case codec == nil || codec.Endpoint == "" && codec.Auth == "":
		return nil
	case s.request.Worker && codec.Endpoint != "":
		return setting.Errorf(s.endpointName(), "not supported by the worker, which has no codec: it could not read what this codec encodes; remove this setting")
	case s.request.Worker:
		return setting.Errorf(s.authName(), "not supported by the worker, which has no codec: remove this setting")
	case codec.Endpoint == "":
		return setting.Errorf(s.authName(), "requires %s", codecEndpointVariable)
	}
	endpoint, err := url.Parse(strings.ReplaceAll(codec.Endpoint, codecNamespace, "namespace"))
	if err != nil || endpoint.Scheme != "http" && endpoint.Scheme != "https" || endpoint.Host == "" ||
		endpoint.User != nil || endpoint.RawQuery != "" || endpoint.Fragment != "" {
		return setting.Errorf(s.endpointName(), "must be an http:// or https:// address, without user name, password or query")
	}
	return checkHeaderValue(s.authName(), codec.Auth)
}

// addCodec has the payloads of all requests and responses encoded and decoded by
// the remote codec, as Temporal's own tools do: also those that are not read by
// the SDK's data converter. A payload that is still encoded then is an error that says
// so: whatever reads it could only take it for none. A worker reads tasks of anybody,
// and refuses what is encoded by itself.
func (c *Configuration) addCodec(options *client.Options) error {
	s := c.files.Latest()
	if s.request.Worker {
		return nil
	}
	codec := s.profile.Codec
	if codec == nil || codec.Endpoint == "" {
		return s.addInterceptors(options, "set this to the address of the codec server that decodes it")
	}
	endpoint := strings.ReplaceAll(codec.Endpoint, codecNamespace, url.PathEscape(s.profile.Namespace))
	remote := converter.NewRemotePayloadCodec(converter.RemotePayloadCodecOptions{
		Endpoint: strings.TrimSuffix(endpoint, "/"),
		Client:   http.Client{Timeout: codecTimeout},
		ModifyRequest: func(r *http.Request) error {
			r.Header.Set("X-Namespace", s.profile.Namespace)
			if auth := c.files.Latest().profile.Codec.Auth; auth != "" {
				r.Header.Set("Authorization", auth)
			}
			return nil
		},
	})
	decoding, err := converter.NewPayloadCodecGRPCClientInterceptor(converter.PayloadCodecGRPCClientInterceptorOptions{
		Codecs: []converter.PayloadCodec{namedCodec{remote, s.endpointName()}},
	})
	if err != nil {
		return setting.Errorf(s.endpointName(), "%v", err)
	}
	return s.addInterceptors(options, "this codec server has not decoded it", decoding)
}

// addInterceptors adds those that decode responses, and refuses what is encoded
// nevertheless.
func (s settings) addInterceptors(options *client.Options, remedy string, decoding ...grpc.UnaryClientInterceptor) error {
	refusing, err := proxy.NewPayloadVisitorInterceptor(proxy.PayloadVisitorInterceptorOptions{Inbound: &proxy.VisitPayloadsOptions{
		Visitor: func(visit *proxy.VisitPayloadsContext, payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
			switch visit.Parent.(type) {
			case *commonpb.Memo, *commonpb.Header, *sdkpb.UserMetadata: // anybody's, and read by nobody who cannot do without
				return payloads, nil
			}
			for _, payload := range payloads {
				encoding := string(payload.GetMetadata()[converter.MetadataEncoding])
				if encoding != "" && !slices.Contains(plainEncodings, encoding) {
					return nil, status.Errorf(codes.InvalidArgument, "%s: what Temporal has is encoded as %.60q: %s", s.endpointName(), encoding, remedy)
				}
			}
			return payloads, nil
		},
		SkipSearchAttributes: true,
	}})
	if err != nil {
		return setting.Errorf(s.endpointName(), "%v", err)
	}
	// The last one sees a response first.
	interceptors := append([]grpc.UnaryClientInterceptor{refusing}, decoding...)
	options.ConnectionOptions.DialOptions = append(options.ConnectionOptions.DialOptions, grpc.WithChainUnaryInterceptor(interceptors...))
	return nil
}

// plainEncodings are those that the SDK reads by itself.
var plainEncodings = []string{
	converter.MetadataEncodingJSON, converter.MetadataEncodingNil, converter.MetadataEncodingBinary,
	converter.MetadataEncodingProtoJSON, converter.MetadataEncodingProto,
}

// namedCodec names the codec's setting in its errors.
type namedCodec struct {
	converter.PayloadCodec
	setting string
}

func (c namedCodec) Encode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	return c.named(c.PayloadCodec.Encode(payloads))
}

func (c namedCodec) Decode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	return c.named(c.PayloadCodec.Decode(payloads))
}

func (c namedCodec) named(payloads []*commonpb.Payload, err error) ([]*commonpb.Payload, error) {
	if err != nil {
		// The SDK retries most other codes until its deadline, and then reports that.
		return nil, status.Errorf(codes.InvalidArgument, "%s: the codec cannot be used: %v", c.setting, err)
	}
	return payloads, nil
}
