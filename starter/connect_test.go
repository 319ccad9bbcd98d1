package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/serviceerror"

	"keyturn/workflows"
)

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagsGoBeforeTheEnvironmentAndThatBeforeTheFile(t *testing.T) {
	a, _, _ := newTestApp()
	file := writeFile(t, "temporal.toml", "[profile.default]\naddress = \"file:1\"\nnamespace = \"file\"\n[profile.other]\naddress = \"other:1\"\n")
	expect := func(address, namespace string) {
		t.Helper()
		options, err := a.clientOptions()
		if err != nil || options.HostPort != address || options.Namespace != namespace {
			t.Errorf("got %q, %q, %v; want %q, %q", options.HostPort, options.Namespace, err, address, namespace)
		}
	}
	a.env = environment{"TEMPORAL_CONFIG_FILE": file + ".none"}
	expect("localhost:7233", "default")
	a.env = environment{"TEMPORAL_CONFIG_FILE": file}
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
	if code != exitWrongUse || !strings.Contains(stderr, "line 2") || strings.Contains(stderr, "s3cret") {
		t.Errorf("exit code %d, %q; want %d and the line, not the key", code, stderr, exitWrongUse)
	}
}

func TestTheTaskQueueIsTheVariablesOrTheDefault(t *testing.T) {
	if got := (environment{}).taskQueue(); got != workflows.DefaultTaskQueue {
		t.Errorf("got %q", got)
	}
	if got := (environment{"KEYTURN_TASK_QUEUE": "mine"}).taskQueue(); got != "mine" {
		t.Errorf("got %q", got)
	}
}

func TestServerNotThere(t *testing.T) {
	begun := time.Now()
	code, stdout, stderr := runHere(t, nil, nil, "watch", "--address", "127.0.0.1:1", "--project", testProject, "--cluster", testCluster)
	if code != exitFailed || stdout != "" || !strings.Contains(stderr, "can't reach Temporal at 127.0.0.1:1") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit code %d, %q, %q; want %d and one line that names the address", code, stdout, stderr, exitFailed)
	}
	if took := time.Since(begun); took > 2*dialTime {
		t.Errorf("it took %s", took)
	}
}

func TestErrorsOfTemporalAreExplained(t *testing.T) {
	s := &session{address: "temporal:7233", namespace: "prod"}
	for want, err := range map[string]error{
		`namespace "prod" does not exist at temporal:7233`:         serviceerror.NewNamespaceNotFound("prod"),
		"the credentials are refused by Temporal at temporal:7233": serviceerror.NewPermissionDenied("no", ""),
		"no answer from Temporal at temporal:7233":                 serviceerror.NewUnavailable("gone"),
		"something else": errors.New("something else"),
	} {
		if got := s.explain(err).Error(); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for want, err := range map[string]error{
		`is a worker running on task queue "keys"?`: serviceerror.NewDeadlineExceeded("query timed out"),
		`on task queue "keys"?`:                     serviceerror.NewFailedPrecondition("no poller seen"),
		"the workflow can't answer: unknown query":  serviceerror.NewQueryFailed("unknown query"),
		"no answer from Temporal":                   serviceerror.NewUnavailable("gone"),
	} {
		if got := s.unanswered(err, "keys").Error(); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
