package digestinterop

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"time"
)

var lighttpd = serverConfig{
	programs:  []string{"lighttpd"},
	arguments: func(configuration string) []string { return []string{"-D", "-f", configuration} },
	hash:      md5Hex,
	template: `
server.modules = ("mod_auth", "mod_authn_file", "mod_proxy", "mod_accesslog")
server.document-root = "{{.Directory}}"
server.bind = "127.0.0.1"
server.port = {{.Port}}
server.max-keep-alive-idle = 3600
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

// lighttpdSHA256 uses the algorithm that RFC 7616 recommends; Ops Manager uses
// MD5.
func lighttpdSHA256() serverConfig {
	k := lighttpd.with(`"algorithm" => "SHA-256"`)
	k.hash = sha256Hex
	return k
}

// lighttpd's nonces are valid for ten minutes.
func TestLighttpdStaleNonceOfPut(t *testing.T) {
	t.Parallel()
	requireStaleNonceAfter(t, 11*time.Minute, lighttpd)
}
