package main

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/support/parallel"
	"keyturn/testsuite/support/temporalserver"
)

// sandboxVariable makes this test binary run the sandbox.
const sandboxVariable = "SANDBOX_TEST_BE_THE_SANDBOX"

func TestMain(m *testing.M) {
	if os.Getenv(sandboxVariable) != "" {
		main()
	}
	parallel.Tests(6)
	temporalserver.Main(m)
}

func TestInvalidFlagsFailWithOneLine(t *testing.T) {
	for arguments, want := range map[string]string{
		"--shards=0":             "--shards: must be 1 to 1000",
		"--clusters=101":         "--clusters: must be 1 to 100",
		"--latency=-1s":          "--latency: must be 0s to 1m0s",
		"--member-time=0s":       "--member-time: must be more than 0s, up to 15s",
		"--member-time=16s":      "--member-time: must be more than 0s, up to 15s",
		"--temporal-port=65536":  "--temporal-port: must be 0 to 65535",
		"--ui-port=-1":           "--ui-port: must be 0 to 65535",
		"--simulator-port=70000": "--simulator-port: must be 0 to 65535",
		"--nonsense":             "unknown flag: --nonsense; see sandbox --help",
		"nonsense":               `unexpected argument "nonsense": sandbox takes flags only; see sandbox --help`,
	} {
		var stdout, stderr bytes.Buffer
		code := execute(t.Context(), []string{arguments}, &stdout, &stderr)
		assert.Equal(t, exitUsage, code, arguments)
		assert.Equal(t, "sandbox: "+want+"\n", stderr.String(), arguments)
		assert.Empty(t, stdout.String(), arguments)
	}
}

func TestHelpDescribesEveryFlag(t *testing.T) {
	var stdout, stderr bytes.Buffer
	require.Zero(t, execute(t.Context(), []string{"--help"}, &stdout, &stderr))
	assert.Empty(t, stderr.String())
	for _, flag := range []string{"--shards", "--clusters", "--latency", "--once", "--deployment", "--member-time", "--temporal-port", "--ui-port", "--simulator-port"} {
		assert.Contains(t, stdout.String(), flag+" ")
	}
}
