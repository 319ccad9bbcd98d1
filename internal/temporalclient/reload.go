package temporalclient

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"reflect"
	"sync"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"keyturn/internal/reload"
	"keyturn/internal/setting"
)

// ErrMoved means that temporal.toml names another Temporal than the one that is
// connected to: another address, namespace or kind of connection. Its credentials are
// not for this connection; [Load] gives another one.
var ErrMoved = errors.New("the configuration names another Temporal")

// Configuration is how to reach one Temporal, checked. What its files hold is read
// again while it is in use, and applied to its clients: API key, headers,
// certificates and the codec's credentials. A file that cannot be used changes
// nothing: what was read before may still be valid.
type Configuration struct {
	request   Request
	files     *reload.Value[settings]
	transport *transport // nil = without TLS
}

// Load reads and checks all settings, without any network. The error is a
// [*setting.Error].
func Load(request Request) (*Configuration, error) {
	c := &Configuration{request: request}
	var err error
	c.files, err = reload.New(reload.Options[settings]{
		Load:     func() (settings, error) { return loadSettings(request) },
		Same:     func(before, now settings) bool { return reflect.DeepEqual(before.contents, now.contents) },
		Apply:    c.apply,
		Interval: request.rereadAfter,
	})
	if err != nil {
		return nil, err
	}
	if config := c.files.Latest().options.ConnectionOptions.TLS; config != nil {
		c.transport = newTransport(config)
	}
	return c, nil
}

// Reload reads the files again now. It returns why their contents are not in force:
// a [*setting.Error] or [ErrMoved]; nil = they are.
func (c *Configuration) Reload() (problem error) { return c.files.Refresh() }

// Changes is how often what is in force has changed.
func (c *Configuration) Changes() int { return c.files.Changes() }

// Load gives the configuration that the files hold now.
func (c *Configuration) Load() (*Configuration, error) { return Load(c.request) }

// Options are for clients; they have no logger, identity or metrics handler.
func (c *Configuration) Options() (client.Options, error) {
	s := c.files.Latest()
	options := s.options
	if s.profile.APIKey != "" {
		options.Credentials = client.NewAPIKeyDynamicCredentials(func(context.Context) (string, error) {
			return c.files.Latest().profile.APIKey, nil
		})
	}
	options.HeadersProvider = headers{c.files}
	if c.transport != nil {
		options.ConnectionOptions.DialOptions = append(options.ConnectionOptions.DialOptions, grpc.WithTransportCredentials(c.transport))
	}
	if err := c.addCodec(&options); err != nil {
		return client.Options{}, err
	}
	return options, nil
}

// headers has each request use the newest headers. It is set without any headers,
// too: so each request of a program that does nothing else has the files read again.
type headers struct{ files *reload.Value[settings] }

func (h headers) GetHeaders(context.Context) (map[string]string, error) {
	return h.files.Latest().profile.GRPCMeta, nil
}

// contents is all that the settings and their files hold, without paths.
type contents struct {
	profile envconfig.ClientConfigProfile
	tls     envconfig.ClientConfigTLS
}

// place is the part of the contents that a client cannot change while it is in use.
func (s settings) place() any {
	p := s.profile
	codec := ""
	if p.Codec != nil {
		codec = p.Codec.Endpoint
	}
	tls := s.contents.tls
	return [...]any{
		p.Address, p.Namespace, p.Authority, p.APIKey != "", codec,
		s.options.ConnectionOptions.TLS != nil, tls.ServerName, tls.DisableHostVerification,
	}
}

// apply refuses another Temporal's settings, and has new connections made if what
// TLS uses has changed.
func (c *Configuration) apply(before, now settings) error {
	if before.found && !now.found { // an empty file is one that is being written
		return setting.Errorf(before.file.label, "the profile %q is gone", before.profileName)
	}
	if before.place() != now.place() {
		return ErrMoved
	}
	if c.transport != nil && !reflect.DeepEqual(before.contents.tls, now.contents.tls) {
		c.transport.use(now.options.ConnectionOptions.TLS)
	}
	return nil
}

// transport makes TLS connections by the newest configuration.
type transport struct {
	// The first configuration's; they differ in certificates only.
	credentials.TransportCredentials

	mu   sync.Mutex
	tls  *tls.Config
	open map[*trackedConn]struct{}
}

func newTransport(config *tls.Config) *transport {
	return &transport{TransportCredentials: credentials.NewTLS(config), tls: config, open: map[*trackedConn]struct{}{}}
}

// use closes all connections of an earlier configuration. Their requests are sent
// again over new ones, as when a server closes them.
func (t *transport) use(config *tls.Config) {
	t.mu.Lock()
	t.tls = config
	earlier := t.open
	t.open = map[*trackedConn]struct{}{}
	t.mu.Unlock()
	for conn := range earlier {
		_ = conn.Conn.Close() // what was in flight is sent again
	}
}

func (t *transport) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	t.mu.Lock()
	config := t.tls
	tracked := &trackedConn{conn, t}
	t.open[tracked] = struct{}{}
	t.mu.Unlock()
	secured, info, err := credentials.NewTLS(config).ClientHandshake(ctx, authority, tracked)
	if err != nil {
		t.forget(tracked)
	}
	return secured, info, err
}

// Clone returns the same transport: a client's connections are all made by it.
func (t *transport) Clone() credentials.TransportCredentials { return t }

func (t *transport) forget(conn *trackedConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, conn)
}

// trackedConn is a connection that its transport can close.
type trackedConn struct {
	net.Conn
	transport *transport
}

func (c *trackedConn) Close() error {
	c.transport.forget(c)
	return c.Conn.Close()
}

// loadSettings reads and checks everything.
func loadSettings(request Request) (settings, error) {
	s, err := readSettings(request)
	if err != nil {
		return s, err
	}
	if err := s.check(); err != nil {
		return s, err
	}
	loaded := s.profile
	if loaded.TLS != nil {
		loaded.TLS = &s.contents.tls
	}
	s.contents.profile = loaded
	s.contents.profile.TLS = nil
	if s.options, err = loaded.ToClientOptions(envconfig.ToClientOptionsRequest{}); err != nil {
		return s, setting.Errorf(anyTLSVariable, "%v", err)
	}
	return s, nil
}
