package digestinterop

import (
	"crypto/md5"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var apache = serverConfig{
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

// withNonceMemory sets how many bytes Apache uses to keep track of its nonces.
func (k serverConfig) withNonceMemory(bytes string) serverConfig {
	k.memory = bytes
	return k
}

// apacheModules loads the modules that are not compiled in, from the directory
// of Debian or of other distributions.
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

// Apache's nonces are valid for five minutes.
func TestApacheStaleNonceOfPut(t *testing.T) {
	t.Parallel()
	requireStaleNonceAfter(t, 6*time.Minute, apache)
}
