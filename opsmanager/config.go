package opsmanager

import (
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"keyturn/internal/proxy"
)

// DefaultRequestTimeout is the value of Config.RequestTimeout if that is zero.
// Ops Manager's documentation gives no figure; a PUT waits for the KMIP server
// behind it.
const DefaultRequestTimeout = 60 * time.Second

// maxIdleConnections keeps the connections of a whole rotation (at most 64
// targets at a time) between its requests.
const maxIdleConnections = 128

// idleTimeout closes an idle connection before most servers and load balancers
// do, so that a PUT is rarely sent over one that is being closed.
const idleTimeout = 25 * time.Second

// connectTimeout is the time for connecting, and again for the TLS handshake. It
// is short, so that a PUT is sent soon after the decision to send it.
const connectTimeout = 5 * time.Second

// Config describes an Ops Manager, the API key to use, and the limits to keep.
// Proxies are taken from the environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY).
type Config struct {
	// BaseURL is the server's address with its path prefix, if there is one, for
	// example https://om.example.net:8443/om. /api/public/v1.0 is added, unless it
	// is there. The address must not contain a user name, a query, a fragment or
	// an escape (%). Plain http is refused except for a loopback address, unless
	// AllowHTTP is set. Required.
	BaseURL string
	// PublicKey and PrivateKey are the user name and the password of the digest
	// authentication. They must not contain spaces or invisible characters. Both
	// are required.
	PublicKey, PrivateKey string
	// CAPEM has certificates in PEM of authorities to trust besides the system's.
	// Every block must be a readable certificate. Empty = only the system's.
	CAPEM []byte
	// ClientCertPEM has the client certificate in PEM, followed by its
	// intermediate certificates, for a server that requires one. Set it and
	// ClientKeyPEM, or neither.
	ClientCertPEM []byte
	// ClientKeyPEM has the private key of ClientCertPEM in PEM, unencrypted.
	ClientKeyPEM []byte
	// AllowHTTP permits plain http to any address.
	AllowHTTP bool
	// RequestsPerSecond limits the requests sent, digest challenges included;
	// 0 = no limit.
	RequestsPerSecond float64
	// MaxInFlight limits the requests in progress at a time; 0 = no limit.
	MaxInFlight int
	// UserAgent is sent with each request; empty = net/http's own.
	UserAgent string
	// RequestTimeout limits one request, from connecting to the last byte of the
	// response; 0 = DefaultRequestTimeout.
	RequestTimeout time.Duration
	// Observer receives what the client does; nil = none.
	Observer Observer
	// OnRefused is called before a call fails because the server refuses the API key
	// or the client certificate. If [Client.Reconfigure] has replaced them when it
	// returns, the request is sent again. nil = nothing is called.
	OnRefused func()
}

// The fields that a ConfigError may name. The last one is no field of Config.
const (
	fieldBaseURL           = "BaseURL"
	fieldPublicKey         = "PublicKey"
	fieldPrivateKey        = "PrivateKey"
	fieldCAPEM             = "CAPEM"
	fieldClientCertPEM     = "ClientCertPEM"
	fieldClientKeyPEM      = "ClientKeyPEM"
	fieldRequestsPerSecond = "RequestsPerSecond"
	fieldMaxInFlight       = "MaxInFlight"
	fieldRequestTimeout    = "RequestTimeout"
	fieldProxy             = "Proxy"
)

// ConfigError is a setting that cannot be used. It never contains the value of a
// secret.
type ConfigError struct {
	// Field is the name of the field of Config, or "Proxy" for a proxy variable
	// of the environment.
	Field string
	// Problem says what is wrong with the value, for example "is missing".
	Problem string
}

// Error returns the field and the problem.
func (e *ConfigError) Error() string { return e.Field + ": " + e.Problem }

func refuse(field, problem string, args ...any) error {
	return &ConfigError{Field: field, Problem: fmt.Sprintf(problem, args...)}
}

// plainPath matches a path prefix that needs no escape and has no empty or dot
// segment.
var plainPath = regexp.MustCompile(`^(/[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]*)*/?$`)

func (c Config) baseURL() (*url.URL, error) {
	no := func(problem string) (*url.URL, error) { return nil, refuse(fieldBaseURL, "%s", problem) }
	if c.BaseURL == "" {
		return no("is missing")
	}
	if at, found := firstInvisible(c.BaseURL); found {
		return no("contains " + at)
	}
	u, err := url.Parse(c.BaseURL)
	switch {
	case strings.Contains(c.BaseURL, "%"):
		return no("must not contain an escape (%)")
	case err != nil:
		return no("is not a URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return no("must begin with https:// or http://")
	case u.User != nil:
		return no("must not contain a user name or a password")
	case strings.Contains(c.BaseURL, "?"):
		return no("must not contain a query (?)")
	case strings.Contains(c.BaseURL, "#"):
		return no("must not contain a fragment (#)")
	case u.Hostname() == "":
		return no("has no host")
	case !proxy.ValidPort(u):
		return no("has a port that is not a number from 1 to 65535")
	case u.Scheme == "http" && !c.AllowHTTP && !isLoopback(u.Hostname()):
		return no("plain http is refused except for a loopback address")
	}
	u.Path = strings.TrimSuffix(strings.TrimRight(u.Path, "/"), apiPath)
	switch {
	case !plainPath.MatchString(u.Path):
		return no("has a path prefix with an empty segment, a segment that begins with a dot, or a character that needs an escape")
	case strings.Contains(u.Path+"/", "/api/public/"):
		return no("must end before, or with, " + apiPath)
	}
	u.RawPath = ""
	return u, nil
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func (c Config) check() error {
	if err := checkKey(fieldPublicKey, c.PublicKey); err != nil {
		return err
	}
	if strings.ContainsAny(c.PublicKey, `:\"`) {
		return refuse(fieldPublicKey, "contains a colon, a backslash or a quote, which digest authentication does not allow")
	}
	if err := checkKey(fieldPrivateKey, c.PrivateKey); err != nil {
		return err
	}
	if strings.ContainsAny(c.PrivateKey, quoteMarks) {
		return refuse(fieldPrivateKey, "contains a quote")
	}
	if c.RequestsPerSecond < 0 || math.IsNaN(c.RequestsPerSecond) || math.IsInf(c.RequestsPerSecond, 0) {
		return refuse(fieldRequestsPerSecond, "must be 0 (no limit) or more")
	}
	if c.MaxInFlight < 0 {
		return refuse(fieldMaxInFlight, "must be 0 (no limit) or more")
	}
	if c.RequestTimeout < 0 {
		return refuse(fieldRequestTimeout, "must not be negative")
	}
	return nil
}

// quoteMarks come into a key by an environment file or a word processor.
const quoteMarks = "\"'`´‘’‚‛“”„‟«»‹›"

// checkKey refuses what comes into a key by mistake when it is copied or read
// from a file: no API key contains it, and Ops Manager would answer with 401.
func checkKey(field, key string) error {
	if key == "" {
		return refuse(field, "is missing")
	}
	if at, found := firstInvisible(key); found {
		return refuse(field, "contains %s", at)
	}
	first, _ := utf8.DecodeRuneInString(key)
	last, _ := utf8.DecodeLastRuneInString(key)
	if strings.ContainsRune(quoteMarks, first) || strings.ContainsRune(quoteMarks, last) {
		return refuse(field, "begins or ends with a quote")
	}
	return nil
}

// firstInvisible describes the first character of a setting that cannot be seen,
// and where it is, without showing the others.
func firstInvisible(s string) (description string, found bool) {
	place := 0
	for _, r := range strings.TrimRight(s, "\r\n") {
		place++
		name := ""
		switch {
		case r == utf8.RuneError:
			name = "a byte that is not UTF-8"
		case r == '\ufeff':
			name = "a byte order mark (U+FEFF)"
		case r == '\u00a0':
			name = "a no-break space (U+00A0)"
		case r == ' ':
			name = "a space"
		case unicode.IsControl(r):
			name = fmt.Sprintf("a control character (U+%04X)", r)
		case unicode.IsSpace(r), !unicode.IsPrint(r), unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector), r == '\u2800':
			name = fmt.Sprintf("an invisible character (U+%04X)", r)
		}
		if name != "" {
			return fmt.Sprintf("%s at character %d", name, place), true
		}
	}
	if strings.HasSuffix(s, "\n") || strings.HasSuffix(s, "\r") {
		return "a line end", true
	}
	return "", false
}

// newSession makes what a client can replace while it is in use.
func (c Config) newSession(base *url.URL) (*session, error) {
	roots, err := c.trustedRoots()
	if err != nil {
		return nil, err
	}
	certificate, err := c.clientCertificate(time.Now())
	if err != nil {
		return nil, err
	}
	via, err := proxy.For(base)
	if err != nil {
		return nil, refuse(fieldProxy, "%v", err)
	}
	p := &peer{proxy: via, hasCertificate: certificate != nil}
	template := &http.Transport{
		Proxy:                  http.ProxyURL(via),
		OnProxyConnectResponse: checkProxyResponse,
		DialContext:            (&net.Dialer{Timeout: connectTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, RootCAs: roots, GetClientCertificate: p.certificateFor(certificate),
		},
		TLSHandshakeTimeout:   connectTimeout,
		IdleConnTimeout:       idleTimeout,
		ExpectContinueTimeout: time.Second,
	}
	return &session{
		id:          sessions.Add(1),
		credentials: credentials{c.PublicKey, c.PrivateKey},
		connections: &connectionPool{newTransport: func() http.RoundTripper { return template.Clone() }},
		peer:        p,
	}, nil
}
