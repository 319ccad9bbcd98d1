package pemtext_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/pemtext"
	"keyturn/testsuite/support/testca"
)

// A bundle of which one block cannot be read is refused, wherever that block is
// and whatever is wrong with it.
func TestAnyDamagedBlockIsRefused(t *testing.T) {
	one, two := string(testca.New(t, "one").PEM), string(testca.New(t, "two").PEM)
	damage := map[string]func(string) string{
		"no line end after it":  func(s string) string { return strings.TrimRight(s, "\n") },
		"BEGIN misspelled":      func(s string) string { return strings.Replace(s, "-----BEGIN CERT", "-----BEGIN CRET", 1) },
		"dash of BEGIN missing": func(s string) string { return s[1:] },
		"END misspelled":        func(s string) string { return strings.Replace(s, "-----END CERT", "-----END CRET", 1) },
		"no END":                func(s string) string { return s[:strings.Index(s, "-----END")] },
		"no BEGIN":              func(s string) string { return s[strings.Index(s, "\n")+1:] },
		"neither":               func(s string) string { return s[strings.Index(s, "\n")+1 : strings.Index(s, "-----END")] },
		"trusted":               func(s string) string { return strings.ReplaceAll(s, " CERTIFICATE", " TRUSTED CERTIFICATE") },
		"letter replaced":       func(s string) string { return strings.Replace(s, "MII", "M!I", 1) },
		"letter changed":        func(s string) string { return strings.Replace(s, "MII", "MIJ", 1) },
		"line missing": func(s string) string {
			l := strings.Split(s, "\n")
			return strings.Join(append(l[:2:2], l[3:]...), "\n")
		},
		"byte order mark": func(s string) string { return "\ufeff" + s },
		"smart dashes":    func(s string) string { return strings.ReplaceAll(s, "-----", "—–") },
		"lower case":      func(s string) string { return strings.ReplaceAll(s, "CERTIFICATE", "certificate") },
	}
	for name, change := range damage {
		t.Run(name, func(t *testing.T) {
			for position, bundle := range []string{change(one) + two, one + change(two) + string(testca.New(t, "three").PEM)} {
				_, err := pemtext.Certificates([]byte(bundle))
				assert.Error(t, err, "position %d:\n%s", position, bundle)
			}
		})
	}
}

func TestWholeBundlesAreRead(t *testing.T) {
	one, two := string(testca.New(t, "one").PEM), string(testca.New(t, "two").PEM)
	for name, bundle := range map[string]string{
		"two":         one + two,
		"no line end": strings.TrimRight(one+two, "\n"),
		"line ends":   strings.ReplaceAll(one+two, "\n", "\r\n"),
		"comments":    "# Example authority\nsubject=CN = one\n" + one + "\n  Serial Number:\n    7f:a1:00\n" + two + "\nend\n",
	} {
		t.Run(name, func(t *testing.T) {
			certificates, err := pemtext.Certificates([]byte(bundle))
			require.NoError(t, err)
			assert.Len(t, certificates, 2)
		})
	}
}
