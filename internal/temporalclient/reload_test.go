package temporalclient_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"keyturn/internal/setting"
	"keyturn/internal/temporalclient"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/testca"
	"keyturn/testsuite/support/tlsproxy"
)

// A client certificate that is renewed is used from the next connection on.
func TestClientCertificateIsReadAgainForEachConnection(t *testing.T) {
	server := temporalserver.Shared(t)
	site := tlsproxy.NewFixture(t, server.Address, secret)
	env := setting.Environment(site.Variables())
	certificate, key := site.Client(t, "expired", site.Authority, testca.Expired)
	env["TEMPORAL_TLS_CLIENT_CERT_PATH"], env["TEMPORAL_TLS_CLIENT_KEY_PATH"] = certificate, key
	configuration, err := temporalclient.Load(temporalclient.RereadAlways(temporalclient.Request{Env: env}))
	require.NoError(t, err)
	options, err := configuration.Options()
	require.NoError(t, err)
	problem := configuration.Diagnose(t.Context(), assert.AnError)
	require.NotNil(t, problem)
	assert.True(t, problem.Refused)

	renewedCertificate, renewedKey := testca.PEM(t, site.Authority.Issue(t, "renewed"))
	writeAt(t, certificate, string(renewedCertificate))
	writeAt(t, key, string(renewedKey))
	connected, err := client.DialContext(t.Context(), options)
	require.NoError(t, err)
	connected.Close()
}

// The command line's payloads pass through the remote codec, with the namespace
// and the credentials that Temporal's own tools send.
func TestRemoteCodecIsHonoured(t *testing.T) {
	server := temporalserver.Shared(t)
	var encoded atomic.Int64
	codec := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, server.Namespace, r.Header.Get("X-Namespace"))
		assert.Equal(t, "Bearer x", r.Header.Get("Authorization"))
		assert.Equal(t, "/"+server.Namespace+"/encode", r.URL.Path)
		encoded.Add(1)
		http.Error(w, "no key", http.StatusForbidden)
	}))
	defer codec.Close()
	configuration, err := temporalclient.Load(temporalclient.Request{Env: setting.Environment{
		"TEMPORAL_CONFIG_FILE": "/dev/null", "TEMPORAL_ADDRESS": server.Address, "TEMPORAL_NAMESPACE": server.Namespace,
		"TEMPORAL_CODEC_ENDPOINT": codec.URL + "/{namespace}/", "TEMPORAL_CODEC_AUTH": "Bearer x",
	}})
	require.NoError(t, err)
	options, err := configuration.Options()
	require.NoError(t, err)
	connected, err := client.DialContext(t.Context(), options)
	require.NoError(t, err)
	defer connected.Close()
	_, err = connected.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{TaskQueue: t.Name(), WorkflowExecutionTimeout: time.Second}, "Any", "input")
	assert.ErrorContains(t, err, "TEMPORAL_CODEC_ENDPOINT: the codec cannot be used")
	assert.Equal(t, int64(1), encoded.Load(), "the codec's refusal is not retried")
	_, err = connected.WorkflowService().GetSystemInfo(t.Context(), &workflowservice.GetSystemInfoRequest{})
	assert.NoError(t, err, "requests without payloads need no codec")
}

// A client that is connected uses what is renewed in the files, for its next
// requests, and what cannot be used changes nothing.
func TestConnectedClientUsesRenewedFiles(t *testing.T) {
	server := temporalserver.Shared(t)
	site := tlsproxy.NewFixture(t, server.Address, secret)
	file := site.Profile(t, "prod", server.Namespace)
	configuration, err := temporalclient.Load(temporalclient.RereadAlways(temporalclient.Request{
		Env: setting.Environment{"TEMPORAL_CONFIG_FILE": file, "TEMPORAL_PROFILE": "prod"},
	}))
	require.NoError(t, err)
	options, err := configuration.Options()
	require.NoError(t, err)
	connected, err := client.DialContext(t.Context(), options)
	require.NoError(t, err)
	defer connected.Close()
	request := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), programTimeout)
		defer cancel()
		_, err := connected.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: server.Namespace})
		return err
	}
	require.NoError(t, request())
	require.Equal(t, "client", site.LastClient())

	// The API key
	site.Change(func(o *tlsproxy.Options) { o.APIKey = "renewed-" + secret })
	err = request()
	require.ErrorContains(t, err, "unauthorized")
	problem := configuration.Diagnose(t.Context(), err)
	require.NotNil(t, problem)
	assert.Equal(t, "TEMPORAL_CONFIG_FILE: profile.prod.api_key", problem.Setting)
	profile, err := os.ReadFile(file)
	require.NoError(t, err)
	renewed := strings.ReplaceAll(string(profile), secret, "renewed-"+secret)
	writeAt(t, file, renewed[:strings.Index(renewed, "renewed-")]) // while it is being written
	require.Error(t, request())
	assert.ErrorContains(t, configuration.Reload(), "TEMPORAL_CONFIG_FILE: the file is not valid TOML")
	writeAt(t, file, renewed)
	require.NoError(t, request())

	// The client certificate, first one file of the pair
	certificate, key := testca.PEM(t, site.Authority.Issue(t, "renewed"))
	writeAt(t, site.CertificateFile, string(certificate))
	require.NoError(t, request())
	assert.ErrorContains(t, configuration.Reload(), "TEMPORAL_CONFIG_FILE: profile.prod.tls.client_key_path: does not belong to the client certificate")
	require.Equal(t, "client", site.LastClient())
	writeAt(t, site.KeyFile, string(key))
	require.NoError(t, configuration.Reload())
	require.NoError(t, request())
	assert.Equal(t, "renewed", site.LastClient())

	// The authority of Temporal's certificate
	other := testca.New(t, "another authority")
	site.Change(func(o *tlsproxy.Options) { o.Certificate = other.Issue(t, "Temporal", testca.For(tlsproxy.Host)) })
	writeAt(t, site.CAFile, string(other.PEM))
	require.NoError(t, configuration.Reload())
	require.NoError(t, request())
	assert.Equal(t, 3, configuration.Changes())
}

// Each request has the files read again, also without an API key.
func TestRequestsOfAClientThatHasOnlyACertificateRenewIt(t *testing.T) {
	server := temporalserver.Shared(t)
	site := tlsproxy.NewFixture(t, server.Address, "")
	configuration, err := temporalclient.Load(temporalclient.RereadAlways(temporalclient.Request{Env: site.Variables()}))
	require.NoError(t, err)
	options, err := configuration.Options()
	require.NoError(t, err)
	connected, err := client.DialContext(t.Context(), options)
	require.NoError(t, err)
	defer connected.Close()
	certificate, key := testca.PEM(t, site.Authority.Issue(t, "renewed"))
	writeAt(t, site.CertificateFile, string(certificate))
	writeAt(t, site.KeyFile, string(key))
	require.Eventually(t, func() bool {
		_, err := connected.WorkflowService().GetSystemInfo(t.Context(), &workflowservice.GetSystemInfoRequest{})
		return err == nil && site.LastClient() == "renewed"
	}, programTimeout, 20*time.Millisecond)
}

// Credentials for one Temporal are never sent to another one.
func TestConfigurationOfAnotherTemporalIsNotApplied(t *testing.T) {
	server := temporalserver.Shared(t)
	site := tlsproxy.NewFixture(t, server.Address, secret)
	file := site.Profile(t, "prod", server.Namespace)
	configuration, err := temporalclient.Load(temporalclient.Request{Env: setting.Environment{"TEMPORAL_CONFIG_FILE": file, "TEMPORAL_PROFILE": "prod"}})
	require.NoError(t, err)
	profile, err := os.ReadFile(file)
	require.NoError(t, err)
	for name, change := range map[string][2]string{
		"address":     {site.Address, "127.0.0.1:1"},
		"namespace":   {`namespace = "` + server.Namespace, `namespace = "other`},
		"server name": {tlsproxy.Host, "other.example.net"},
		"no API key":  {`api_key = "` + secret + `"`, ""},
		"TLS off":     {"[profile.prod.tls]", "[profile.prod.tls]\ndisabled = true"},
	} {
		writeAt(t, file, strings.NewReplacer(change[0], change[1], secret, "other-"+secret).Replace(string(profile)))
		assert.ErrorIs(t, configuration.Reload(), temporalclient.ErrMoved, name)
		moved, err := configuration.Load()
		require.NoError(t, err, name)
		assert.NoError(t, moved.Reload(), name)
	}
	writeAt(t, file, "") // while it is being written
	assert.ErrorContains(t, configuration.Reload(), "TEMPORAL_PROFILE: TEMPORAL_CONFIG_FILE has no such profile")
	assert.Zero(t, configuration.Changes())
	writeAt(t, file, string(profile))
	assert.NoError(t, configuration.Reload())
	assert.Zero(t, configuration.Changes())
}

// An empty file is one that is being written, and not the default Temporal.
func TestDefaultProfileThatIsGoneChangesNothing(t *testing.T) {
	file := writeFile(t, "temporal.toml", "[profile.default]\naddress = \"temporal:7233\"\n")
	configuration, err := temporalclient.Load(temporalclient.Request{Env: setting.Environment{"TEMPORAL_CONFIG_FILE": file}})
	require.NoError(t, err)
	writeAt(t, file, "")
	assert.EqualError(t, configuration.Reload(), `TEMPORAL_CONFIG_FILE: the profile "default" is gone`)
}
