package opsmanager

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode"

	"github.com/icholy/digest"
	"github.com/stretchr/testify/require"
)

const (
	fuzzedID  = "5196d3628d022db4cbc26d9e"
	plantedID = "s3cret-private-key"
)

// answering is a transport that returns one response to every request and keeps
// the requests.
type answering struct {
	status int
	header http.Header
	body   string
	asked  []*http.Request
}

func (a *answering) RoundTrip(r *http.Request) (*http.Response, error) {
	a.asked = append(a.asked, r)
	return &http.Response{StatusCode: a.status, Header: a.header, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
}

func clientWith(t testing.TB, transport http.RoundTripper) *Client {
	t.Helper()
	c, err := New(Config{BaseURL: "https://om.example.net", PublicKey: "public", PrivateKey: plantedID})
	require.NoError(t, err)
	c.session.Load().connections.newTransport = func() http.RoundTripper { return transport }
	return c
}

// checkError checks what holds for every error that a response can lead to.
func checkError(t *testing.T, err error) {
	t.Helper()
	apiError, ok := AsError(err)
	require.True(t, ok, "%T: %v", err, err)
	require.NotEmpty(t, apiError.Kind, "%v", err)
	text := err.Error()
	require.False(t, len(text) > 1200 || strings.Contains(text, plantedID) || strings.ContainsFunc(text, unicode.IsControl), "not fit for a log: %q", text)
}

func FuzzKeyAnswer(f *testing.F) {
	whole := `{"clusterId":"` + fuzzedID + `","groupId":"` + fuzzedID + `","encryptionKeyUUID":"1234-3456-4567-abcd-def0"}`
	for _, seed := range []string{whole, whole[:40], "{}", "", "null", "[]", whole + whole, `{"encryptionKeyUUID":null}`, "<html><title>x</title>", strings.ReplaceAll(whole, "1234", `\u0000`), strings.ReplaceAll(whole, "clusterId", "CLUSTERID")} {
		f.Add(200, seed)
	}
	f.Add(500, `{"errorCode":"UNEXPECTED_ERROR","detail":"`+plantedID+`"}`)
	f.Add(302, whole)
	f.Add(404, `{"errorCode":["x"]}`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 100 || status > 999 {
			return
		}
		key, err := clientWith(t, &answering{status: status, header: http.Header{}, body: body}).EncryptionKey(t.Context(), fuzzedID, fuzzedID)
		if err != nil {
			checkError(t, err)
			return
		}
		require.True(t, status/100 == 2 && key != "" && len(key) <= maxKeyID && json.Valid([]byte(body)), "read %q from %d %q", key, status, body)
	})
}

func FuzzClusterList(f *testing.F) {
	one := `{"id":"` + fuzzedID + `","groupId":"` + fuzzedID + `","clusterName":"a","typeName":"REPLICA_SET"}`
	for _, seed := range []string{`{"results":[` + one + `],"totalCount":1}`, `{"results":[],"totalCount":0}`, `{"results":[` + one + `],"totalCount":2,"links":[{"rel":"next","href":"http://elsewhere.example.net/"}]}`, `{"results":{}}`, `{"results":[{"id":"../.."}]}`, `{"totalCount":-1,"results":[` + one + `]}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		transport := &answering{status: 200, header: http.Header{}, body: body}
		clusters, err := clientWith(t, transport).Clusters(t.Context(), fuzzedID)
		if err != nil {
			checkError(t, err)
		}
		for _, cluster := range clusters {
			mayBeTarget := cluster.IsSharded() || cluster.ShardName != "" || cluster.TypeName == TypeReplicaSet || cluster.TypeName == TypeConfigServerReplicaSet
			require.True(t, (ValidID(cluster.ID) || mayBeTarget) && strings.EqualFold(cluster.GroupID, fuzzedID), "read %+v", cluster)
		}
		for _, request := range transport.asked {
			require.Equal(t, "om.example.net", request.URL.Host)
		}
		require.LessOrEqual(t, len(transport.asked), 2*maxPasses, "pages of the same response")
	})
}

func FuzzChallenge(f *testing.F) {
	for _, seed := range []string{
		`Digest realm="MMS Public API", domain="", nonce="abc", algorithm=MD5, qop="auth", stale=false`,
		`Digest realm="x", nonce="n", qop="auth-int"`, `Digest realm="x", nonce="n"`, `Digest nonce=""`, `Basic realm="x"`,
		`Digest realm="x\"", nonce="a\\b", opaque="o", qop="auth,auth-int", userhash=true, algorithm=SHA-256`,
		"Digest realm=\"x\r\nInjected: 1\", nonce=\"n\"", `Digest realm="x", nonce="n", algorithm=SHA-512-256-sess`, `Digest ,,,=`,
		`Basic realm="x", Digest realm="y", nonce="n", qop="auth-int, auth",`, `Negotiate YWJj==, Digest nonce=YWJj==, realm="\xe9"`, `Digest realm="a", nonce="n", nonce="m"`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		transport := &answering{status: http.StatusUnauthorized, header: http.Header{"Www-Authenticate": {header}}}
		err := clientWith(t, transport).RotateEncryptionKey(t.Context(), fuzzedID, fuzzedID, nil)
		require.Error(t, err, "a 401 is no success")
		checkError(t, err)
		require.LessOrEqual(t, len(transport.asked), maxChallenges, "challenges")
		for _, request := range transport.asked {
			checkAuthorization(t, request.Header.Get("Authorization"))
		}
	})
}

// checkAuthorization requires one line that the library's parser can read.
func checkAuthorization(t *testing.T, value string) {
	t.Helper()
	if value == "" {
		return
	}
	require.False(t, strings.ContainsFunc(value, unicode.IsControl) || strings.Contains(value, plantedID), "sent %q", value)
	credentials, err := digest.ParseCredentials(value)
	require.NoError(t, err, "sent %q", value)
	require.True(t, credentials.Username == "public" || credentials.Userhash, "sent %q", value)
}
