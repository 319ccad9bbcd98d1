package events_test

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/events"
	"keyturn/internal/setting"
	"keyturn/testsuite/support/eventreceiver"
)

// writeSecrets writes a file with these lines.
func writeSecrets(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secrets")
	require.NoError(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	return path
}

// secretOf returns a secret of this many bytes.
func secretOf(size int) string {
	return "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("s3cret!!", size/8+1)[:size]))
}

func TestSettings(t *testing.T) {
	const url = "https://hooks.example.net/keyturn?token=s3cret"
	right := writeSecrets(t, eventreceiver.Secret)
	with := func(changes ...string) setting.Environment {
		env := setting.Environment{events.URLVariable: url, events.SecretFileVariable: right}
		for i := 0; i < len(changes); i += 2 {
			env[changes[i]] = changes[i+1]
		}
		return env
	}
	withFile := func(lines ...string) setting.Environment {
		return with(events.SecretFileVariable, writeSecrets(t, lines...))
	}
	for name, c := range map[string]struct {
		env              setting.Environment
		setting, problem string
	}{
		"none":                   {setting.Environment{}, "", ""},
		"empty":                  {setting.Environment{events.URLVariable: "", events.SecretFileVariable: ""}, "", ""},
		"valid":                  {with(), "", ""},
		"http allowed":           {with(events.URLVariable, "http://relay:8080/", events.AllowHTTPVariable, "true"), "", ""},
		"https and http allowed": {with(events.AllowHTTPVariable, "true"), "", ""},
		"Web UI":                 {with(events.WebUIVariable, "http://temporal.example.net:8233/ui/"), "", ""},
		"four secrets":           {withFile(secretOf(24), "", secretOf(64)+"\r", " "+secretOf(32), secretOf(33)), "", ""},

		"secret without URL":     {setting.Environment{events.SecretFileVariable: right}, events.SecretFileVariable, "requires KEYTURN_EVENTS_URL"},
		"http without URL":       {setting.Environment{events.AllowHTTPVariable: "true"}, events.AllowHTTPVariable, "requires KEYTURN_EVENTS_URL"},
		"Web UI without URL":     {setting.Environment{events.WebUIVariable: "https://ui"}, events.WebUIVariable, "requires KEYTURN_EVENTS_URL"},
		"URL without secret":     {with(events.SecretFileVariable, ""), events.SecretFileVariable, "is required with KEYTURN_EVENTS_URL"},
		"http":                   {with(events.URLVariable, "http://relay/s3cret"), events.URLVariable, "plain http is refused (KEYTURN_EVENTS_ALLOW_HTTP is not true)"},
		"http to loopback":       {with(events.URLVariable, "http://127.0.0.1:1/", events.AllowHTTPVariable, "false"), events.URLVariable, "plain http is refused"},
		"http perhaps":           {with(events.AllowHTTPVariable, "yes"), events.AllowHTTPVariable, "must be true or false"},
		"no scheme":              {with(events.URLVariable, "hooks.example.net/s3cret"), events.URLVariable, "must begin with https:// or http://"},
		"another scheme":         {with(events.URLVariable, "ftp://h/s3cret"), events.URLVariable, "must begin with https:// or http://"},
		"user":                   {with(events.URLVariable, "https://s3cret@h/"), events.URLVariable, "must not contain a user name"},
		"password":               {with(events.URLVariable, "https://u:s3cret@h/"), events.URLVariable, "must not contain a user name or a password"},
		"fragment":               {with(events.URLVariable, "https://h/#s3cret"), events.URLVariable, "must not contain a fragment"},
		"no host":                {with(events.URLVariable, "https:///s3cret"), events.URLVariable, "has no host"},
		"empty port":             {with(events.URLVariable, "https://h:/s3cret"), events.URLVariable, "has a port that is not a number"},
		"port 0":                 {with(events.URLVariable, "https://h:0/s3cret"), events.URLVariable, "has a port that is not a number"},
		"large port":             {with(events.URLVariable, "https://h:65536/s3cret"), events.URLVariable, "has a port that is not a number"},
		"no URL":                 {with(events.URLVariable, "https://h/%s3cret%%"), events.URLVariable, "is not a URL"},
		"line end":               {with(events.URLVariable, "https://h/s3cret\n"), events.URLVariable, "control character"},
		"spaces":                 {with(events.URLVariable, " https://h/s3cret"), events.URLVariable, "white space"},
		"Web UI with a password": {with(events.WebUIVariable, "https://u:s3cret@ui"), events.WebUIVariable, "must not contain a user name"},
		"Web UI with a query":    {with(events.WebUIVariable, "https://ui/?s3cret"), events.WebUIVariable, "must not contain a query"},
		"Web UI without scheme":  {with(events.WebUIVariable, "s3cret:8233"), events.WebUIVariable, "must begin with"},
		"secret for its file":    {with(events.SecretFileVariable, "whsec_s3cret"), events.SecretFileVariable, "cannot read the file"},
		"no prefix":              {withFile(strings.TrimPrefix(secretOf(32), "whsec_")), events.SecretFileVariable, "line 1 is not whsec_ followed by base64"},
		"no base64":              {withFile(secretOf(32), "whsec_s3cret~~"), events.SecretFileVariable, "line 2 is not whsec_ followed by base64"},
		"sloppy base64":          {withFile("whsec_" + strings.Repeat("A", 32) + "AB=="), events.SecretFileVariable, "line 1 is not whsec_"},
		"short secret":           {withFile(secretOf(23)), events.SecretFileVariable, "the secret in line 1 has 23 bytes: must be 24 to 64"},
		"long secret":            {withFile("", secretOf(65)), events.SecretFileVariable, "the secret in line 2 has 65 bytes"},
		"five secrets":           {withFile(secretOf(24), secretOf(25), secretOf(26), secretOf(27), secretOf(28)), events.SecretFileVariable, "the file contains 5 secrets: must be 1 to 4"},
		"no secret":              {withFile("", " "), events.SecretFileVariable, "the file contains no secret"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := events.ReadSettings(c.env)
			if c.setting == "" {
				require.NoError(t, err)
				assert.Equal(t, c.env[events.URLVariable] != "", s.Configured())
				return
			}
			var wrong *setting.Error
			require.True(t, errors.As(err, &wrong), "%v", err)
			assert.Equal(t, c.setting, wrong.Setting)
			assert.Contains(t, wrong.Problem, c.problem)
			assert.NotContains(t, err.Error(), "s3cret")
			assert.NotContains(t, err.Error(), base64.RawStdEncoding.EncodeToString([]byte("s3cret")))
		})
	}
}

// httpproxy's own error quotes the proxy, which may have a password.
func TestProxyThatIsNoURL(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://u:s3cret@proxy:port")
	s, err := events.ReadSettings(setting.Environment{
		events.URLVariable: "https://hooks.example.net", events.SecretFileVariable: writeSecrets(t, eventreceiver.Secret),
	})
	require.NoError(t, err)
	_, err = events.NewSender(s)
	var wrong *setting.Error
	require.True(t, errors.As(err, &wrong), "%v", err)
	assert.Equal(t, "HTTPS_PROXY", wrong.Setting)
	assert.NotContains(t, err.Error(), "s3cret")
}
