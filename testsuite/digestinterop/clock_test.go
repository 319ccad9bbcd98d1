package digestinterop

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// requireStaleNonceAfter lets a server's nonces expire between the read and the
// PUT, on the same connection. The server has a clock of its own, so this takes
// no time.
func requireStaleNonceAfter(t *testing.T, lifetime time.Duration, k serverConfig) {
	t.Helper()
	clock := filepath.Join(t.TempDir(), "clock")
	setClock(t, clock, 0)
	k.environment = []string{"LD_PRELOAD=" + libfaketime(t), "FAKETIME_NO_CACHE=1", "FAKETIME_TIMESTAMP_FILE=" + clock}
	om := newOpsManager(t)
	set := om.AddReplicaSet(project, "audit")
	w := k.start(t, om, operator)
	client := w.client(t, operator)
	readKey(t, client, set.ID)
	setClock(t, clock, lifetime)
	require.Eventually(t, func() bool { return w.clock().After(time.Now().Add(lifetime - time.Minute)) }, timeout, 10*time.Millisecond)
	rotateOnce(t, client, om, set.ID)
	requireStalePut(t, w)
}

// libfaketime is the library that sets the clock of a process.
func libfaketime(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
	require.NoError(t, err)
	if len(found) == 0 {
		t.Skip("faketime is not installed")
	}
	return found[0]
}

// setClock replaces the file: the server may read it at any time.
func setClock(t *testing.T, file string, ahead time.Duration) {
	t.Helper()
	written := file + ".new"
	require.NoError(t, os.WriteFile(written, fmt.Appendf(nil, "+%ds\n", int(ahead.Seconds())), 0o644))
	require.NoError(t, os.Rename(written, file))
}

// clock is the current time of the server, zero if unknown.
func (w *webServer) clock() time.Time {
	answer, err := http.Get(w.url + probePath)
	if err != nil {
		return time.Time{}
	}
	_ = answer.Body.Close() // not read
	at, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return at
}
