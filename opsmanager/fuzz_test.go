package opsmanager

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode"

	"github.com/icholy/digest"
)

const (
	fuzzedID  = "5196d3628d022db4cbc26d9e"
	plantedID = "s3cret-private-key"
)

// answering is a transport that gives one answer to every request, and keeps
// what it was asked.
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
	if err != nil {
		t.Fatal(err)
	}
	c.transport = transport
	return c
}

// checkError holds for every error that an answer can lead to.
func checkError(t *testing.T, err error) {
	t.Helper()
	apiError, ok := AsError(err)
	if !ok || apiError.Kind == "" {
		t.Fatalf("%T has no kind: %v", err, err)
	}
	text := err.Error()
	if len(text) > 1200 || strings.Contains(text, plantedID) || strings.ContainsFunc(text, unicode.IsControl) {
		t.Fatalf("not fit for a log: %q", text)
	}
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
		if status/100 != 2 || key == "" || len(key) > maxKeyID || !json.Valid([]byte(body)) {
			t.Fatalf("took %q out of %d %q", key, status, body)
		}
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
			if !ValidID(cluster.ID) || !strings.EqualFold(cluster.GroupID, fuzzedID) {
				t.Fatalf("took %+v", cluster)
			}
		}
		for _, request := range transport.asked {
			if request.URL.Host != "om.example.net" {
				t.Fatalf("asked %s", request.URL)
			}
		}
		if len(transport.asked) > 3 {
			t.Fatalf("asked for %d pages of the same answer", len(transport.asked))
		}
	})
}

func FuzzChallenge(f *testing.F) {
	for _, seed := range []string{
		`Digest realm="MMS Public API", domain="", nonce="abc", algorithm=MD5, qop="auth", stale=false`,
		`Digest realm="x", nonce="n", qop="auth-int"`, `Digest realm="x", nonce="n"`, `Digest nonce=""`, `Basic realm="x"`,
		`Digest realm="x\"", nonce="a\\b", opaque="o", qop="auth,auth-int", userhash=true, algorithm=SHA-256`,
		"Digest realm=\"x\r\nInjected: 1\", nonce=\"n\"", `Digest realm="x", nonce="n", algorithm=SHA-512-256-sess`, `Digest ,,,=`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		transport := &answering{status: http.StatusUnauthorized, header: http.Header{"Www-Authenticate": {header}}}
		err := clientWith(t, transport).RotateEncryptionKey(t.Context(), fuzzedID, fuzzedID, nil)
		if err == nil {
			t.Fatal("a 401 is no success")
		}
		checkError(t, err)
		if len(transport.asked) > maxChallenges {
			t.Fatalf("answered %d challenges", len(transport.asked))
		}
		for _, request := range transport.asked {
			checkAuthorization(t, request.Header.Get("Authorization"))
		}
	})
}

// checkAuthorization asks for one line that an independent parser reads.
func checkAuthorization(t *testing.T, value string) {
	t.Helper()
	if value == "" {
		return
	}
	if strings.ContainsFunc(value, unicode.IsControl) || strings.Contains(value, plantedID) {
		t.Fatalf("sent %q", value)
	}
	credentials, err := digest.ParseCredentials(value)
	if err != nil || credentials.Username != "public" && !credentials.Userhash {
		t.Fatalf("sent %q: %v", value, err)
	}
}
