package stage

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/stretchr/testify/require"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/sdk/client"
)

// histories is where the tests' histories are kept as golden ones of a release,
// for the package replay:
//
//	go test ./testsuite/endtoend ./testsuite/faults -histories "$PWD/testsuite/replay/testdata/VERSION"
var histories = flag.String("histories", "", "folder that the histories of the tests' rotations are written to")

// Which host and process did something is nobody's business later: it stands in
// identities, and in the names of the workers' own (sticky) task queues.
var (
	identity    = regexp.MustCompile(`"identity": *"[^"]*"`)
	stickyQueue = regexp.MustCompile(`"name": *"[^":]*:[0-9a-f-]{36}"`)
)

// keep writes a closed run's history, named after its test, if that is asked
// for.
func (s Stage) keep(run client.WorkflowRun) {
	s.Helper()
	s.KeepAs(run, "")
}

// KeepAs is keep for a further history of the test's, with a name of its own.
func (s Stage) KeepAs(run client.WorkflowRun, suffix string) {
	s.Helper()
	if *histories == "" || s.Unrecorded {
		return
	}
	data, err := temporalproto.CustomJSONMarshalOptions{Indent: " "}.Marshal(&historypb.History{Events: s.History(run)})
	require.NoError(s, err)
	data = identity.ReplaceAll(data, []byte(`"identity": "keyturn"`))
	data = stickyQueue.ReplaceAll(data, []byte(`"name": "keyturn:sticky"`))
	require.NoError(s, os.MkdirAll(*histories, 0o755))
	name := strings.ReplaceAll(strings.TrimPrefix(s.Name(), "Test"), "/", "-") + suffix
	require.NoError(s, os.WriteFile(filepath.Join(*histories, name+".json"), data, 0o644))
}
