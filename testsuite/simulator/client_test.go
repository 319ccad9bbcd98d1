package simulator_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
)

const (
	root    = "/api/public/v1.0"
	project = simulator.DefaultProjectID
)

// client signs its requests itself, so that a test can sign them wrongly.
type client struct {
	t        *testing.T
	base     string
	user     string
	password string
	http     *http.Client

	mu    sync.Mutex
	nonce string
	count int
}

func newClient(t *testing.T, om *simulator.Server) *client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &client{
		t: t, base: om.URL, user: simulator.DefaultPublicKey, password: simulator.DefaultPrivateKey,
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}},
	}
}

// reply is an answer that was read to its end, or to its error.
type reply struct {
	*http.Response
	body    []byte
	bodyErr error
}

func (r reply) object(t *testing.T) map[string]any {
	t.Helper()
	var object map[string]any
	require.NoError(t, json.Unmarshal(r.body, &object), "%s", r.body)
	return object
}

func hash(text string) string { return fmt.Sprintf("%x", md5.Sum([]byte(text))) }

func (c *client) sign(method, uri, nonce string, count int) string {
	nc := fmt.Sprintf("%08x", count)
	response := hash(hash(c.user+":"+simulator.Realm+":"+c.password) + ":" + nonce + ":" + nc + ":c0ffee:auth:" + hash(method+":"+uri))
	return fmt.Sprintf(`Digest username="%s", realm="%s", nonce="%s", uri="%s", cnonce="c0ffee", nc=%s, qop=auth, response="%s", algorithm=MD5`,
		c.user, simulator.Realm, nonce, uri, nc, response)
}

// raw sends one request with the given Authorization header.
func (c *client) raw(ctx context.Context, method, path, authorization string) (reply, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.base+root+path, nil)
	require.NoError(c.t, err)
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	body, bodyErr := io.ReadAll(response.Body)
	return reply{response, body, bodyErr}, nil
}

var noncePattern = regexp.MustCompile(`nonce="([^"]+)"`)

func (c *client) freshNonce() string {
	answered, err := c.raw(c.t.Context(), http.MethodGet, "/groups", "")
	require.NoError(c.t, err)
	require.Equal(c.t, http.StatusUnauthorized, answered.StatusCode)
	return noncePattern.FindStringSubmatch(answered.Header.Get("WWW-Authenticate"))[1]
}

func (c *client) authorize(method, path string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nonce == "" {
		c.nonce, c.count = c.freshNonce(), 0
	}
	c.count++
	at, err := url.Parse(c.base + root + path)
	require.NoError(c.t, err)
	return c.sign(method, at.RequestURI(), c.nonce, c.count)
}

// try sends one signed request, with the nonce of the one before.
func (c *client) try(method, path string) (reply, error) {
	return c.raw(c.t.Context(), method, path, c.authorize(method, path))
}

func (c *client) do(method, path string) reply {
	c.t.Helper()
	answered, err := c.try(method, path)
	require.NoError(c.t, err)
	return answered
}

func (c *client) get(path string) reply {
	c.t.Helper()
	return c.do(http.MethodGet, path)
}

func (c *client) readKey(clusterID string) any {
	c.t.Helper()
	answered := c.get(keyPath(clusterID))
	require.Equal(c.t, http.StatusOK, answered.StatusCode, "%s", answered.body)
	return answered.object(c.t)["encryptionKeyUUID"]
}

func (c *client) rotate(clusterID string) reply {
	c.t.Helper()
	return c.do(http.MethodPut, keyPath(clusterID))
}

func keyPath(clusterID string) string {
	return "/groups/" + project + "/backupConfigs/" + clusterID + "/encryptionKey"
}

// control calls a control endpoint.
func control(t *testing.T, om *simulator.Server, method, path, body string) (int, []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, om.Address+path, bytes.NewBufferString(body))
	require.NoError(t, err)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, text
}

func await(t *testing.T, om *simulator.Server, fulfilled func(simulator.Ledger) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, om.Await(ctx, fulfilled))
}
