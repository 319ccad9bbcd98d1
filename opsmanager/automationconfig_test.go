package opsmanager_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
)

const (
	configSecret = "planted-secret-of-a-configuration"
	configText   = `{"version":7,"auth":{"key":"` + configSecret + `"},"processes":[{"name":"m-0"},{"name":"m-1","lastKmipMasterKeyRotation":null}]}`
	withoutKey   = `{"version":7,"auth":{},"processes":[{"name":"m-0"}]}`
)

// configServer answers like Ops Manager and keeps what it is sent.
type configServer struct {
	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request)
	sent   []string // method, path and body
}

func (s *configServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.sent = append(s.sent, r.Method+" "+strings.TrimPrefix(r.URL.Path, "/api/public/v1.0/groups/"+anyID)+" "+string(body))
	s.mu.Unlock()
	s.answer(w, r)
}

func clientOf(t *testing.T, url string) *opsmanager.Client {
	t.Helper()
	return newClient(t, opsmanager.Config{BaseURL: url, PublicKey: "public", PrivateKey: "0f1e2d3c-4b5a-4968", RequestTimeout: 5 * time.Second})
}

func serveConfig(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) (*opsmanager.Client, *configServer) {
	t.Helper()
	s := &configServer{answer: answer}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return clientOf(t, server.URL), s
}

func apiRefusal(w http.ResponseWriter, status int, code, detail string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": status, "errorCode": code, "detail": detail})
}

func isNoSecrets(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/noSecrets") }

// A configuration goes back to where it came from: one without secrets anywhere
// else would replace them.
func TestAConfigurationIsReadWithoutSecretsAndPublishedAlike(t *testing.T) {
	for name, missing := range map[string]int{"noSecrets": 0, "404": http.StatusNotFound, "405": http.StatusMethodNotAllowed} {
		t.Run(name, func(t *testing.T) {
			client, server := serveConfig(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodPut:
					_, _ = io.WriteString(w, "{}")
				case isNoSecrets(r) && missing != 0:
					apiRefusal(w, missing, "RESOURCE_NOT_FOUND", "")
				case isNoSecrets(r):
					_, _ = io.WriteString(w, withoutKey)
				default:
					_, _ = io.WriteString(w, configText)
				}
			})
			config, err := client.AutomationConfig(t.Context(), anyID)
			require.NoError(t, err)
			assert.EqualValues(t, 7, config.Version())
			assert.Equal(t, missing == 0, config.HasNoSecrets())
			require.NoError(t, client.PutAutomationConfig(t.Context(), anyID, config, nil))
			last := server.sent[len(server.sent)-1]
			if missing == 0 {
				assert.Equal(t, "PUT /automationConfig/noSecrets "+withoutKey, last)
				assert.Len(t, server.sent, 2)
			} else {
				assert.Equal(t, "PUT /automationConfig "+configText, last)
			}
		})
	}
}

func TestAProjectWithoutAConfigurationIsNotFound(t *testing.T) {
	client, _ := serveConfig(t, func(w http.ResponseWriter, r *http.Request) {
		apiRefusal(w, http.StatusNotFound, "GROUP_NOT_FOUND", "")
	})
	_, err := client.AutomationConfig(t.Context(), anyID)
	assert.Equal(t, "GROUP_NOT_FOUND", requireError(t, err, opsmanager.NotFound).ErrorCode)
	_, err = client.AutomationConfig(t.Context(), "../x")
	requireError(t, err, opsmanager.InvalidID)
}

// Whatever goes wrong, no error and no line of a log has a byte of the document.
func TestNoErrorQuotesAConfiguration(t *testing.T) {
	var logged bytes.Buffer
	log.SetOutput(&logged)
	t.Cleanup(func() { log.SetOutput(io.Discard) })
	send := func(status int, contentType, body string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	raw := func(text string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			connection, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_, _ = io.WriteString(connection, text)
				_ = connection.Close()
			}
		}
	}
	const ofJSON = "application/json"
	answers := map[string]func(http.ResponseWriter, *http.Request){
		"not an object":       send(200, ofJSON, `["`+configSecret+`"]`),
		"a string":            send(200, ofJSON, `"`+configSecret+`"`),
		"bare text":           send(200, ofJSON, configSecret),
		"half of it":          send(200, ofJSON, configText[:len(configText)/2]),
		"two of them":         send(200, ofJSON, configText+configText),
		"repeated name":       send(200, ofJSON, `{"`+configSecret+`":1,"`+configSecret+`":2,"version":1,"processes":[]}`),
		"invalid name":        send(200, ofJSON, `{"`+configSecret+`" 1}`),
		"version":             send(200, ofJSON, `{"version":"`+configSecret+`","processes":[]}`),
		"no version":          send(200, ofJSON, `{"`+configSecret+`":1,"processes":[]}`),
		"processes":           send(200, ofJSON, `{"version":1,"processes":{"`+configSecret+`":1}}`),
		"process":             send(200, ofJSON, `{"version":1,"processes":["`+configSecret+`"]}`),
		"HTML":                send(200, "text/html", "<title>"+configSecret+"</title>"),
		"500 text":            send(500, "text/plain", configSecret),
		"500 HTML":            send(500, "text/html", "<title>"+configSecret+"</title>"),
		"400 detail":          send(400, ofJSON, `{"errorCode":"INVALID_ATTRIBUTE","detail":"invalid value `+configSecret+`"}`),
		"400 code":            send(400, ofJSON, `{"errorCode":"`+configSecret+`","reason":"`+configSecret+`"}`),
		"409":                 send(409, ofJSON, `{"errorCode":"AUTOMATION_CONFIG_CONCURRENT_MODIFICATION","detail":"`+configSecret+`"}`),
		"no HTTP":             raw(configText + "\r\n\r\n"),
		"odd status":          raw("HTTP/1.1 2" + configSecret + "\r\n\r\n"),
		"odd header":          raw("HTTP/1.1 200 OK\r\n" + configSecret + "\r\n\r\n"),
		"odd chunk":           raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + configSecret + "\r\n"),
		"odd trailer":         raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + configSecret + "\r\n\r\n"),
		"body cut":            raw("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + configText),
		"object that is none": send(200, ofJSON, `{"key":"`+configSecret+`"}`),
	}
	for name, answer := range answers {
		for _, method := range []string{http.MethodGet, http.MethodPut} {
			t.Run(name+" "+method, func(t *testing.T) {
				client, _ := serveConfig(t, func(w http.ResponseWriter, r *http.Request) {
					if r.Method == method {
						answer(w, r)
						return
					}
					_, _ = io.WriteString(w, configText)
				})
				config, err := client.AutomationConfig(t.Context(), anyID)
				if method == http.MethodPut {
					require.NoError(t, err)
					err = client.PutAutomationConfig(t.Context(), anyID, config, nil)
				}
				require.Error(t, err)
				for ; err != nil; err = errors.Unwrap(err) {
					for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)} {
						assert.NotContains(t, text, configSecret)
						assert.NotContains(t, text, "m-0")
					}
				}
			})
		}
	}
	assert.Empty(t, logged.String())
}

// net/http logs what arrives over an idle connection.
func TestNoLogHasWhatFollowsAConfiguration(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	closed := make(chan struct{}, 10)
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				buffer := make([]byte, 4096)
				_, _ = connection.Read(buffer)
				// The length is too small by some bytes: they follow the response.
				_, _ = fmt.Fprintf(connection, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s", len(configText), configText, configText)
				_, _ = io.Copy(io.Discard, connection) // until the client closes it
				closed <- struct{}{}
			}()
		}
	}()
	var logged bytes.Buffer
	log.SetOutput(&logged)
	t.Cleanup(func() { log.SetOutput(io.Discard) })
	_, err = clientOf(t, "http://"+listener.Addr().String()).AutomationConfig(t.Context(), anyID)
	require.NoError(t, err)
	<-closed
	assert.NotContains(t, logged.String(), configSecret)
}

func TestAConfigurationIsNeverWritten(t *testing.T) {
	client, _ := serveConfig(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, configText) })
	config, err := client.AutomationConfig(t.Context(), anyID)
	require.NoError(t, err)
	inside := struct {
		Shown  opsmanager.AutomationConfig
		hidden opsmanager.AutomationConfig
	}{config, config}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		fmt.Fprintf(&out, verb+verb+verb, config, &config, inside)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "config", config, "inside", inside)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "config", config, "inside", inside)
	assert.NotContains(t, out.String(), configSecret)
	assert.NotContains(t, out.String(), fmt.Sprintf("%x", configSecret))
	assert.NotContains(t, out.String(), strings.Trim(fmt.Sprint([]byte(configSecret)), "[]"))
	assert.Contains(t, out.String(), "version 7")
	_, err = json.Marshal(inside)
	require.Error(t, err)
	require.Error(t, gob.NewEncoder(&out).Encode(inside))
	assert.Equal(t, "no automation configuration", opsmanager.AutomationConfig{}.String())
}

func TestAnAcceptedPublication(t *testing.T) {
	for name, c := range map[string]struct {
		status  int
		body    string
		kind    opsmanager.Kind
		unknown bool
	}{
		"{}":               {200, "{}", "", false},
		"nothing":          {200, "", "", false},
		"a page":           {200, "<html>log in</html>", opsmanager.UnexpectedResponse, true},
		"another object":   {200, `{"login":true}`, opsmanager.UnexpectedResponse, true},
		"500":              {500, "{}", opsmanager.Unavailable, true},
		"refused":          {400, "{}", opsmanager.UnexpectedResponse, false},
		"at the same time": {409, `{"errorCode":"AUTOMATION_CONFIG_CONCURRENT_MODIFICATION"}`, opsmanager.Unavailable, false},
		"locked":           {403, `{"errorCode":"CHANGE_NOT_ALLOWED_EXTERNAL_SYSTEM"}`, opsmanager.Forbidden, false},
	} {
		t.Run(name, func(t *testing.T) {
			client, _ := serveConfig(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPut {
					w.WriteHeader(c.status)
					_, _ = io.WriteString(w, c.body)
					return
				}
				_, _ = io.WriteString(w, configText)
			})
			config, err := client.AutomationConfig(t.Context(), anyID)
			require.NoError(t, err)
			err = client.PutAutomationConfig(t.Context(), anyID, config, nil)
			if c.kind == "" {
				require.NoError(t, err)
				return
			}
			apiError := requireError(t, err, c.kind)
			assert.Equal(t, c.unknown, apiError.OutcomeUnknown)
			assert.Equal(t, c.status == 409, apiError.IsConcurrentModification())
			assert.Equal(t, c.status == 403, apiError.IsExternallyManaged())
		})
	}
}

// A 401 that says who holds the lock is no wrong key: it is not asked again.
func TestALockedProjectIsRefusedAtOnce(t *testing.T) {
	client, server := serveConfig(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") == "":
			w.Header().Set("WWW-Authenticate", `Digest realm="x", nonce="n", qop="auth"`)
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == http.MethodPut:
			w.Header().Set("WWW-Authenticate", `Digest realm="x", nonce="m", qop="auth"`)
			apiRefusal(w, http.StatusUnauthorized, "EXTERNALLY_MANAGED_LOCK", configSecret)
		default:
			_, _ = io.WriteString(w, configText)
		}
	})
	config, err := client.AutomationConfig(t.Context(), anyID)
	require.NoError(t, err)
	apiError := requireError(t, client.PutAutomationConfig(t.Context(), anyID, config, nil), opsmanager.Unauthorized)
	assert.True(t, apiError.IsExternallyManaged())
	assert.False(t, apiError.OutcomeUnknown)
	puts := 0
	for _, sent := range server.sent {
		if strings.HasPrefix(sent, http.MethodPut) {
			puts++
		}
	}
	assert.Equal(t, 1, puts)
}

// The body is sent again with the answer to a challenge, and auth-int covers it.
func TestTheBodyAnswersAChallenge(t *testing.T) {
	for _, qop := range []string{"auth", "auth-int"} {
		t.Run(qop, func(t *testing.T) {
			client, server := serveConfig(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodPut && r.Header.Get("Authorization") == "":
					w.Header().Set("WWW-Authenticate", `Digest realm="x", nonce="n", qop="`+qop+`"`)
					w.WriteHeader(http.StatusUnauthorized)
				case r.Method == http.MethodPut:
					_, _ = io.WriteString(w, "{}")
				default:
					_, _ = io.WriteString(w, configText)
				}
			})
			config, err := client.AutomationConfig(t.Context(), anyID)
			require.NoError(t, err)
			checked := 0
			require.NoError(t, client.PutAutomationConfig(t.Context(), anyID, config, func() error { checked++; return nil }))
			assert.Equal(t, 2, checked, "before each sending")
			want := "PUT /automationConfig/noSecrets " + configText
			assert.Equal(t, []string{want, want}, server.sent[len(server.sent)-2:])
		})
	}
}

// The caller's own error comes back, whatever it says: only those of a response are
// dropped.
func TestTheCallersRefusalToPublishComesBack(t *testing.T) {
	client, server := serveConfig(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, configText) })
	config, err := client.AutomationConfig(t.Context(), anyID)
	require.NoError(t, err)
	refusal := errors.New(`the activity "x" is another worker's`)
	err = client.PutAutomationConfig(t.Context(), anyID, config, func() error { return refusal })
	require.ErrorIs(t, err, refusal)
	assert.False(t, requireError(t, err, opsmanager.Unavailable).OutcomeUnknown)
	assert.Len(t, server.sent, 1)
}

func TestAConfigurationMayBeLarge(t *testing.T) {
	large := `{"version":1,"x":"` + strings.Repeat("x", 20<<20) + `","processes":[]}`
	tooLarge := `{"version":1,"x":"` + strings.Repeat("x", 64<<20) + `","processes":[]}`
	for _, chunked := range []bool{false, true} {
		for _, text := range []string{large, tooLarge} {
			client, _ := serveConfig(t, func(w http.ResponseWriter, r *http.Request) {
				if chunked {
					w.(http.Flusher).Flush()
				}
				_, _ = io.WriteString(w, text)
			})
			config, err := client.AutomationConfig(t.Context(), anyID)
			if len(text) == len(large) {
				require.NoError(t, err)
				assert.Equal(t, len(large), config.Size())
				continue
			}
			assert.Contains(t, requireError(t, err, opsmanager.UnexpectedResponse).Detail, "larger than")
		}
	}
}

func TestTheServersClock(t *testing.T) {
	date, age := time.Time{}, ""
	client, _ := serveConfig(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", date.UTC().Format(http.TimeFormat))
		if age != "" {
			w.Header().Set("Age", age)
		}
		_, _ = io.WriteString(w, configText)
	})
	_, _, known := client.ClockOffset()
	assert.False(t, known)
	for _, ahead := range []time.Duration{-time.Hour, 0, 2 * time.Minute} {
		date = time.Now().Add(ahead)
		_, err := client.AutomationConfig(t.Context(), anyID)
		require.NoError(t, err)
		least, most, known := client.ClockOffset()
		assert.True(t, known)
		assert.LessOrEqual(t, least, ahead)
		assert.GreaterOrEqual(t, most, ahead)
		assert.InDelta(t, ahead.Seconds(), least.Seconds(), 5)
	}
	date, age = time.Now().Add(-time.Hour), "3600"
	_, err := client.AutomationConfig(t.Context(), anyID)
	require.NoError(t, err)
	least, _, _ := client.ClockOffset()
	assert.InDelta(t, 120, least.Seconds(), 5, "a cached response says nothing")
}

// Whether a response is slow before or after its Date is written is not known: a
// middle between the two would be wrong by half of the time.
func TestASlowResponseShowsBoundsOfTheServersClock(t *testing.T) {
	const slow = 3 * time.Second
	for name, before := range map[string]bool{"before": true, "after": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, _ := serveConfig(t, func(w http.ResponseWriter, r *http.Request) {
				if before {
					time.Sleep(slow)
				}
				w.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
				if !before {
					time.Sleep(slow)
				}
				_, _ = io.WriteString(w, configText)
			})
			_, err := client.AutomationConfig(t.Context(), anyID)
			require.NoError(t, err)
			least, most, known := client.ClockOffset()
			require.True(t, known)
			assert.LessOrEqual(t, least, time.Duration(0), "the clocks are the same")
			assert.GreaterOrEqual(t, most, time.Duration(0))
			assert.GreaterOrEqual(t, most-least, slow)
		})
	}
}
