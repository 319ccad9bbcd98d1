package opsmanager

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// DefaultRequestTimeout bounds one request, from its first byte to the last of
// its answer, where Config.RequestTimeout is zero. Ops Manager publishes no
// figure; a PUT waits for the KMIP server behind it.
const DefaultRequestTimeout = 60 * time.Second

// maxIdleConnections keeps the connections of a whole rotation (64 targets at a
// time at the most) alive between its requests; net/http's own default is 2.
const maxIdleConnections = 128

// idleTimeout closes an idle connection before the usual servers and load
// balancers do, so that a PUT is seldom sent into one that is being closed.
const idleTimeout = 25 * time.Second

// connectTimeout bounds the making of a connection, and of its TLS session: it
// is short, so that a PUT goes out soon after the decision to send it.
const connectTimeout = 5 * time.Second

// Config says which Ops Manager to call, as whom, and how hard.
type Config struct {
	// BaseURL is the server's address, with a path prefix if there is one;
	// /api/public/v1.0 is added. Plain http is refused but for a loopback
	// address, unless AllowHTTP is set.
	BaseURL string
	// PublicKey and PrivateKey are the user name and the password of the
	// digest authentication.
	PublicKey, PrivateKey string
	// CAPEM holds certificates of authorities to trust besides the system's.
	CAPEM []byte
	// AllowHTTP permits plain http to any address.
	AllowHTTP bool
	// RequestsPerSecond limits the requests sent, digest challenges included;
	// 0 = no limit.
	RequestsPerSecond float64
	// MaxInFlight limits the requests under way at a time; 0 = no limit.
	MaxInFlight int
	// UserAgent is sent with each request; empty = net/http's own.
	UserAgent string
	// RequestTimeout bounds one request; 0 = DefaultRequestTimeout.
	RequestTimeout time.Duration
	// Observer is told what the client does; nil = nobody is.
	Observer Observer
}

// ConfigError names the field of a Config that cannot be used. It never shows
// the value of a secret.
type ConfigError struct {
	Field   string
	Problem string
}

func (e *ConfigError) Error() string { return e.Field + ": " + e.Problem }

func (c Config) baseURL() (*url.URL, error) {
	refuse := func(problem string) error { return &ConfigError{Field: "BaseURL", Problem: problem} }
	if c.BaseURL == "" {
		return nil, refuse("is missing")
	}
	u, err := url.Parse(c.BaseURL)
	switch {
	case err != nil:
		return nil, refuse("is not a URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, refuse("must begin with https:// or http://")
	case u.Hostname() == "":
		return nil, refuse("names no host")
	case u.User != nil:
		return nil, refuse("must not hold a user name or a password")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, refuse("must not hold a query or a fragment")
	case u.Scheme == "http" && !c.AllowHTTP && !isLoopback(u.Hostname()):
		return nil, refuse("plain http is refused for an address that is not loopback")
	}
	u.Path = strings.TrimSuffix(strings.TrimRight(u.Path, "/"), apiPath)
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
	for _, key := range []struct{ field, value string }{{"PublicKey", c.PublicKey}, {"PrivateKey", c.PrivateKey}} {
		if key.value == "" {
			return &ConfigError{Field: key.field, Problem: "is missing"}
		}
		if strings.ContainsFunc(key.value, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			return &ConfigError{Field: key.field, Problem: "holds a control character"}
		}
	}
	if strings.Contains(c.PublicKey, ":") || !quotable(c.PublicKey) {
		return &ConfigError{Field: "PublicKey", Problem: "holds a character that digest authentication does not allow"}
	}
	if c.RequestsPerSecond < 0 || math.IsNaN(c.RequestsPerSecond) || math.IsInf(c.RequestsPerSecond, 0) {
		return &ConfigError{Field: "RequestsPerSecond", Problem: "must be 0 (no limit) or more"}
	}
	if c.MaxInFlight < 0 {
		return &ConfigError{Field: "MaxInFlight", Problem: "must be 0 (no limit) or more"}
	}
	if c.RequestTimeout < 0 {
		return &ConfigError{Field: "RequestTimeout", Problem: "must not be negative"}
	}
	return nil
}

func (c Config) transport() (*http.Transport, error) {
	roots, err := c.trustedRoots()
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: connectTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:   connectTimeout,
		MaxIdleConns:          maxIdleConnections,
		MaxIdleConnsPerHost:   maxIdleConnections,
		IdleConnTimeout:       idleTimeout,
		ExpectContinueTimeout: time.Second,
	}, nil
}

// trustedRoots adds the private authority to the system's; nil = the system's.
func (c Config) trustedRoots() (*x509.CertPool, error) {
	if len(c.CAPEM) == 0 {
		return nil, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, &ConfigError{Field: "CAPEM", Problem: fmt.Sprintf("the system's certificates can't be read: %v", err)}
	}
	if !roots.AppendCertsFromPEM(c.CAPEM) {
		return nil, &ConfigError{Field: "CAPEM", Problem: "holds no certificate in PEM"}
	}
	return roots, nil
}
