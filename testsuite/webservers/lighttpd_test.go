package webservers

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var lighttpd = kind{
	programs:  []string{"lighttpd"},
	arguments: func(configuration string) []string { return []string{"-D", "-f", configuration} },
	hash:      md5Hex,
	template: `
server.modules = ("mod_auth", "mod_authn_file", "mod_proxy", "mod_accesslog")
server.document-root = "{{.Directory}}"
server.bind = "127.0.0.1"
server.port = {{.Port}}
accesslog.filename = "{{.Directory}}/log"
accesslog.format = "%s %m %U%q %{remote}p"
auth.backend = "htdigest"
auth.backend.htdigest.userfile = "{{.Directory}}/users"
auth.require = ("/" => ("method" => "digest", "realm" => "{{.Realm}}", "require" => "valid-user", {{.Extra}}))
proxy.server = ("" => (("host" => "127.0.0.1", "port" => {{.BackendPort}})))
`,
}

func sha256Hex(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// lighttpdSHA256 asks for the algorithm that RFC 7616 recommends; Ops Manager
// asks for MD5.
func lighttpdSHA256() kind {
	k := lighttpd.with(`"algorithm" => "SHA-256"`)
	k.hash = sha256Hex
	return k
}

// lighttpd's nonces last ten minutes, which pass at once by a clock of its own.
func TestLighttpdCallsTheNonceOfAPutStale(t *testing.T) {
	t.Parallel()
	clock := filepath.Join(t.TempDir(), "clock")
	setClock(t, clock, "+0")
	k := lighttpd
	k.environment = []string{"LD_PRELOAD=" + libfaketime(t), "FAKETIME_NO_CACHE=1", "FAKETIME_TIMESTAMP_FILE=" + clock}
	om := newOpsManager(t)
	set := om.AddReplicaSet(project, "audit")
	w := k.start(t, om, operator)
	client := w.client(t, operator)
	readKey(t, client, set.ID)
	setClock(t, clock, "+11m")
	require.Eventually(t, func() bool { return w.clock().After(time.Now().Add(10 * time.Minute)) }, patience, 10*time.Millisecond)
	rotateOnce(t, client, om, set.ID)
	requireStalePut(t, w)
}

// libfaketime is what gives a process another clock.
func libfaketime(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
	require.NoError(t, err)
	if len(found) == 0 {
		t.Skip("faketime is not installed")
	}
	return found[0]
}

func setClock(t *testing.T, file, offset string) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, []byte(offset+"\n"), 0o644))
}

// clock is the time that the server believes it is; zero if it doesn't say.
func (w *webServer) clock() time.Time {
	answer, err := http.Get(w.url + probePath)
	if err != nil {
		return time.Time{}
	}
	_ = answer.Body.Close() // nothing was written
	at, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return at
}
