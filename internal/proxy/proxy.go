// Package proxy is the one way to find the proxy of an address.
package proxy

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// Error is a variable of the environment that cannot be used. It does not quote the
// value, which may contain a password.
type Error struct {
	// Variable is HTTPS_PROXY or HTTP_PROXY.
	Variable string
	// Problem says what is wrong.
	Problem string
}

// Error returns the variable and the problem.
func (e *Error) Error() string { return e.Variable + " " + e.Problem }

// For returns the proxy that the environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY) names
// for an address; nil = none. The httpproxy package passes over a value that it cannot
// parse, and the program would then try to connect directly. The error is an [*Error].
func For(address *url.URL) (*url.URL, error) {
	environment := httpproxy.FromEnvironment()
	variable, value := "HTTPS_PROXY", environment.HTTPSProxy
	if address.Scheme == "http" {
		variable, value = "HTTP_PROXY", environment.HTTPProxy
	}
	proxy, err := environment.ProxyFunc()(address)
	if err != nil {
		return nil, &Error{variable, fmt.Sprintf("cannot be used: %v", err)}
	}
	if value != "" && !isProxy(value) && !isProxy("http://"+value) {
		return nil, &Error{variable, "is not the URL of a proxy, such as http://proxy.example.net:3128"}
	}
	return proxy, nil
}

func isProxy(value string) bool {
	u, err := url.Parse(value)
	if err != nil || u.Hostname() == "" || !ValidPort(u) {
		return false
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
		return true
	}
	return false
}

// ValidPort reports whether a URL has no port, or one from 1 to 65535.
func ValidPort(u *url.URL) bool {
	if u.Port() == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && port > 0
}
