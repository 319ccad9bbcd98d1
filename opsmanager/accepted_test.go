package opsmanager_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
)

// Only the API's own response is an acceptance of a PUT.
func TestAPutThatSomethingElseAnswers(t *testing.T) {
	const id = "65a1f1aa0000000000000001" // the simulator's first
	other := strings.Repeat("e", 24)
	const html = "text/html; charset=utf-8"
	accepted := opsmanager.Kind("")
	for name, c := range map[string]struct {
		status            int
		contentType, body string
		kind              opsmanager.Kind
	}{
		"nothing":                  {204, "", "", accepted},
		"blanks":                   {200, "", " \r\n", accepted},
		"empty object":             {200, "", " {} ", accepted},
		"the object":               {202, "", fmt.Sprintf(`{"clusterId":%q,"groupId":%q,"encryptionKeyUUID":"k"}`, id, project), accepted},
		"the object without a key": {201, "", fmt.Sprintf(`{"clusterId":%q,"groupId":%q,"encryptionKeyUUID":null,"links":[]}`, id, project), accepted},
		"login page":               {200, html, "<html><head><title>Log in</title></head></html>", opsmanager.UnexpectedResponse},
		"login page with 201":      {201, html, "<form>", opsmanager.UnexpectedResponse},
		"login page as JSON":       {200, "", "<html><head><title>Log in</title></head></html>", opsmanager.UnexpectedResponse},
		"text":                     {200, "text/plain", "OK", opsmanager.UnexpectedResponse},
		"other JSON":               {200, "", `{"login":"required"}`, opsmanager.UnexpectedResponse},
		"JSON error with 200":      {200, "", `{"error":401,"detail":"log in"}`, opsmanager.UnexpectedResponse},
		"another cluster's key":    {200, "", fmt.Sprintf(`{"clusterId":%q,"groupId":%q,"encryptionKeyUUID":"k"}`, other, project), opsmanager.UnexpectedResponse},
		"an envelope":              {200, "", `{"status":200,"content":{}}`, opsmanager.UnexpectedResponse},
		"null":                     {200, "", `null`, opsmanager.UnexpectedResponse},
		"a list":                   {200, "", `[]`, opsmanager.UnexpectedResponse},
		"a string":                 {200, "", `""`, opsmanager.UnexpectedResponse},
		"half an object":           {200, "", `{"clusterId":"`, opsmanager.UnexpectedResponse},
		"two objects":              {200, "", `{}{}`, opsmanager.UnexpectedResponse},
		"too much":                 {200, "", strings.Repeat(" ", 9<<20), opsmanager.UnexpectedResponse},
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.Start(t, simulator.Options{})
			set := om.AddReplicaSet(project, "audit")
			require.Equal(t, id, set.ID)
			om.Inject(simulator.Fault{Method: http.MethodPut, Apply: simulator.ApplyNo, Status: c.status, Body: c.body, ContentType: c.contentType})
			client, recorded := newObserved(t, configFor(om))
			err := client.RotateEncryptionKey(t.Context(), project, set.ID, nil)
			if c.kind == accepted {
				require.NoError(t, err)
				assert.Contains(t, recorded.read(), "PUT ended")
				return
			}
			apiError := requireError(t, err, c.kind)
			assert.True(t, apiError.OutcomeUnknown)
			assert.Equal(t, c.status, apiError.StatusCode)
			assert.Contains(t, recorded.read(), "PUT ended: UnexpectedResponse")
		})
	}
}

// A redirect to a login page is not followed. All but those that ask for the same
// request elsewhere may come after the request was carried out.
func TestARedirectOfAPut(t *testing.T) {
	for status, unknown := range map[int]bool{301: true, 302: true, 303: true, 304: true, 305: true, 307: false, 308: false} {
		om := simulator.Start(t, simulator.Options{})
		set := om.AddReplicaSet(project, "audit")
		fault := simulator.RedirectElsewhere(http.MethodPut, set.ID, "https://login.example.net/start?token=s3cret#x")
		fault.Status = status
		om.Inject(fault)
		apiError := requireError(t, newClient(t, configFor(om)).RotateEncryptionKey(t.Context(), project, set.ID, nil), opsmanager.UnexpectedResponse)
		assert.Equal(t, unknown, apiError.OutcomeUnknown, status)
		assert.Contains(t, apiError.Detail, "https://login.example.net/start")
		assert.NotContains(t, apiError.Detail, "s3cret")
	}
}

// An object without a key is the API's only if it names the cluster or says nothing
// else: one that something else sends must not pass for a backup that is not
// encrypted, which a fleet leaves out.
func TestAGetOfAKeyThatSomethingElseAnswers(t *testing.T) {
	const id = "65a1f1aa0000000000000001" // the simulator's first
	for body, kind := range map[string]opsmanager.Kind{
		`{}`:                         opsmanager.EncryptionOff,
		`{"encryptionKeyUUID":null}`: opsmanager.EncryptionOff,
		`{"links":[]}`:               opsmanager.EncryptionOff,
		fmt.Sprintf(`{"clusterId":%q,"groupId":%q}`, id, project): opsmanager.EncryptionOff,
		`{"login":"required"}`:                opsmanager.UnexpectedResponse,
		`{"error":401,"detail":"log in"}`:     opsmanager.UnexpectedResponse,
		`{"status":200,"content":{}}`:         opsmanager.UnexpectedResponse,
		`{"clusterId":"","login":"required"}`: opsmanager.UnexpectedResponse,
		fmt.Sprintf(`{"clusterId":%q,"groupId":%q}`, strings.Repeat("e", 24), project): opsmanager.UnexpectedResponse,
	} {
		om := simulator.Start(t, simulator.Options{})
		set := om.AddReplicaSet(project, "audit")
		require.Equal(t, id, set.ID)
		om.Inject(simulator.Fault{Method: http.MethodGet, Status: http.StatusOK, Body: body})
		_, err := newClient(t, configFor(om)).EncryptionKey(t.Context(), project, set.ID)
		apiError, ok := opsmanager.AsError(err)
		require.True(t, ok, body)
		assert.Equal(t, kind, apiError.Kind, body)
	}
}

// The date of a Retry-After is the server's: a machine whose clock is behind, or
// ahead, waits no longer and no shorter.
func TestADateToRetryAfterIsTheServers(t *testing.T) {
	for _, skew := range []time.Duration{-2 * time.Hour, 0, 2 * time.Hour} {
		om := simulator.Start(t, simulator.Options{})
		set := om.AddReplicaSet(project, "audit")
		now := time.Now().Add(skew).UTC()
		om.Inject(simulator.Fault{Method: http.MethodGet, Status: http.StatusTooManyRequests, Header: map[string]string{
			"Date": now.Format(http.TimeFormat), "Retry-After": now.Add(90 * time.Second).Format(http.TimeFormat),
		}})
		_, err := newClient(t, configFor(om)).EncryptionKey(t.Context(), project, set.ID)
		assert.Equal(t, 90*time.Second, requireError(t, err, opsmanager.RateLimited).RetryAfter, skew)
	}
}
