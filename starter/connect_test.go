package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"

	"keyturn/internal/setting"
	"keyturn/workflows"
)

func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestFlagsGoBeforeTheEnvironmentAndThatBeforeTheFile(t *testing.T) {
	a, _, _ := newTestApp()
	file := writeFile(t, "temporal.toml", "[profile.default]\naddress = \"file:1\"\nnamespace = \"file\"\n[profile.other]\naddress = \"other:1\"\n")
	expect := func(address, namespace string) {
		t.Helper()
		_, options, err := a.clientOptions()
		require.NoError(t, err)
		assert.Equal(t, address, options.HostPort)
		assert.Equal(t, namespace, options.Namespace)
	}
	a.env = setting.Environment{"TEMPORAL_CONFIG_FILE": noProfile(t)}
	expect("localhost:7233", "default")
	a.env = setting.Environment{"TEMPORAL_CONFIG_FILE": file}
	expect("file:1", "file")
	a.env["TEMPORAL_ADDRESS"] = "variable:1"
	expect("variable:1", "file")
	a.server = serverFlags{address: "flag:1", namespace: "flag"}
	expect("flag:1", "flag")
	delete(a.env, "TEMPORAL_ADDRESS")
	a.server = serverFlags{profile: "other"}
	expect("other:1", "default")
}

func TestABrokenConfigurationFileIsNotShown(t *testing.T) {
	file := writeFile(t, "temporal.toml", "[profile.default]\napi_key = s3cret-key\n")
	code, _, stderr := runHere(t, []string{"TEMPORAL_CONFIG_FILE=" + file}, nil, "watch", "--project", testProject, "--cluster", testCluster)
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, stderr, "line 2")
	assert.NotContains(t, stderr, "s3cret")
}

func TestTheTaskQueueIsTheVariablesOrTheDefault(t *testing.T) {
	a, _, _ := newTestApp()
	assert.Equal(t, workflows.DefaultTaskQueue, a.defaultTaskQueue())
	a.env["KEYTURN_TASK_QUEUE"] = "mine"
	assert.Equal(t, "mine", a.defaultTaskQueue())
}

func TestServerNotThere(t *testing.T) {
	begun := time.Now()
	code, stdout, stderr := runHere(t, nil, nil, "watch", "--address", "127.0.0.1:1", "--project", testProject, "--cluster", testCluster)
	assert.Equal(t, exitFailed, code)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, "cannot connect to Temporal at 127.0.0.1:1")
	assert.Equal(t, 1, strings.Count(stderr, "\n"))
	assert.False(t, time.Since(begun) > 2*dialTimeout)
}

func TestErrorsOfTemporalAreExplained(t *testing.T) {
	a, _, _ := newTestApp()
	a.env = setting.Environment{"TEMPORAL_CONFIG_FILE": noProfile(t)}
	configuration, _, err := a.clientOptions()
	require.NoError(t, err)
	s := &session{address: "temporal:7233", namespace: "prod", configuration: configuration}
	for want, err := range map[string]error{
		`namespace "prod" does not exist at temporal:7233`:                         serviceerror.NewNamespaceNotFound("prod"),
		"credentials refused by Temporal at temporal:7233; check TEMPORAL_API_KEY": serviceerror.NewPermissionDenied("no", ""),
		"no answer from Temporal at temporal:7233":                                 serviceerror.NewUnavailable("gone"),
		"something else": errors.New("something else"),
	} {
		assert.True(t, strings.HasPrefix(s.explain(err).Error(), want))
	}
	for want, err := range map[string]error{
		`start a worker on task queue "keys"`:                 serviceerror.NewDeadlineExceeded("query timed out"),
		`on task queue "keys"`:                                serviceerror.NewFailedPrecondition("no poller seen"),
		"the workflow cannot answer the query: unknown query": serviceerror.NewQueryFailed("unknown query"),
		"no answer from Temporal":                             serviceerror.NewUnavailable("gone"),
	} {
		assert.Contains(t, s.explainQuery(err, "keys").Error(), want)
	}
}
