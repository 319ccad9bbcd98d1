package webservers

import (
	"crypto/md5"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var apache = kind{
	programs:  []string{"apache2", "httpd"},
	arguments: func(configuration string) []string { return []string{"-D", "FOREGROUND", "-f", configuration} },
	hash:      md5Hex,
	memory:    "1M",
	template: `
ServerRoot "{{.Directory}}"
DefaultRuntimeDir "{{.Directory}}"
PidFile "{{.Directory}}/pid"
ErrorLog "{{.Directory}}/errors"
ServerName 127.0.0.1
Listen 127.0.0.1:{{.Port}}
{{if .Root}}
User nobody
Group nogroup
{{end}}
` + apacheModules() + `
KeepAliveTimeout 3600
AuthDigestShmemSize {{.Memory}}
CustomLog "{{.Directory}}/log" "%>s %m %U%q %{remote}p"
<Location "/">
	AuthType Digest
	AuthName "{{.Realm}}"
	AuthUserFile "{{.Directory}}/users"
	Require valid-user
	{{.Extra}}
</Location>
ProxyPass "/" "http://127.0.0.1:{{.BackendPort}}/"
`,
}

// remembering sets how many bytes Apache has for what it knows of its nonces.
func (k kind) remembering(bytes string) kind {
	k.memory = bytes
	return k
}

// apacheModules loads what isn't compiled in, from where Debian and others keep
// the modules.
func apacheModules() string {
	directory := "/usr/lib/apache2/modules"
	if _, err := os.Stat(directory); err != nil {
		directory = "/usr/lib64/httpd/modules"
	}
	var lines string
	for _, name := range []string{"mpm_event", "unixd", "log_config", "authn_core", "authn_file", "authz_core", "authz_user", "auth_digest", "proxy", "proxy_http"} {
		if path := filepath.Join(directory, "mod_"+name+".so"); exists(path) {
			lines += "LoadModule " + name + "_module " + path + "\n"
		}
	}
	return lines
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func md5Hex(text string) string {
	sum := md5.Sum([]byte(text))
	return hex.EncodeToString(sum[:])
}

// Apache's nonces last five minutes.
func TestApacheCallsTheNonceOfAPutStale(t *testing.T) {
	t.Parallel()
	requireStaleNonceAfter(t, 6*time.Minute, apache)
}
