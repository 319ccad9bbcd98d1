package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"keyturn/testsuite/temporalserver"
)

// sandboxVariable makes this test program the sandbox itself.
const sandboxVariable = "SANDBOX_TEST_BE_THE_SANDBOX"

func TestMain(m *testing.M) {
	if os.Getenv(sandboxVariable) != "" {
		main()
	}
	temporalserver.Main(m)
}

func TestWrongFlagsAreToldInOneLine(t *testing.T) {
	for arguments, want := range map[string]string{
		"--shards=0":             "--shards: must be 1 to 1000",
		"--clusters=101":         "--clusters: must be 1 to 100",
		"--latency=-1s":          "--latency: must be 0s to 1m0s",
		"--temporal-port=65536":  "--temporal-port: must be 0 to 65535",
		"--ui-port=-1":           "--ui-port: must be 0 to 65535",
		"--simulator-port=70000": "--simulator-port: must be 0 to 65535",
		"--nonsense":             "unknown flag: --nonsense",
		"nonsense":               `unknown command "nonsense" for "sandbox"`,
	} {
		var stdout, stderr bytes.Buffer
		code := execute(t.Context(), []string{arguments}, &stdout, &stderr)
		if code != exitWrongUse || stderr.String() != "sandbox: "+want+"\n" || stdout.Len() > 0 {
			t.Errorf("%s: got %d and %q, want %d and %q", arguments, code, stderr.String(), exitWrongUse, want)
		}
	}
}

func TestHelpSpeaksOfEveryFlag(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := execute(t.Context(), []string{"--help"}, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Errorf("got %d and %q", code, stderr.String())
	}
	for _, flag := range []string{"--shards", "--clusters", "--latency", "--once", "--temporal-port", "--ui-port", "--simulator-port"} {
		if !strings.Contains(stdout.String(), flag+" ") {
			t.Errorf("--help does not speak of %s", flag)
		}
	}
}
