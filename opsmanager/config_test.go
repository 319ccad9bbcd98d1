package opsmanager_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/testca"
)

// requireConfigError requires that a config is refused, with its field named and
// without the private key.
func requireConfigError(t *testing.T, config opsmanager.Config, field, problem string) {
	t.Helper()
	_, err := opsmanager.New(config)
	var configError *opsmanager.ConfigError
	require.ErrorAs(t, err, &configError)
	assert.Equal(t, field, configError.Field, "%v", err)
	assert.Contains(t, configError.Problem, problem)
	if len(config.PrivateKey) > 3 {
		assert.NotContains(t, err.Error(), config.PrivateKey)
	}
	for _, line := range strings.Split(string(config.ClientKeyPEM), "\n") {
		if len(line) > 20 && !strings.HasPrefix(line, "-") {
			assert.NotContains(t, err.Error(), line)
		}
	}
}

var goodConfig = opsmanager.Config{BaseURL: "https://om.example.net:8443/om/", PublicKey: "u", PrivateKey: "s3cret"}

func TestBaseURL(t *testing.T) {
	for _, good := range []string{
		"https://om.example.net", "https://om.example.net/", "https://om.example.net:8443/om", "https://om.example.net/om/api/public/v1.0", "https://om.example.net/api/public/v1.0/",
		"http://localhost:8080", "http://127.0.0.1:8080", "http://[::1]:8080", "HTTPS://OM.example.net/a-b_c.d/e",
	} {
		config := goodConfig
		config.BaseURL = good
		newClient(t, config)
	}
	for bad, problem := range map[string]string{
		"":                                              "is missing",
		"om.example.net":                                "must begin with",
		"ftp://om.example.net":                          "must begin with",
		"https://":                                      "no host",
		"https://:8443":                                 "no host",
		"https://u:p@om.example.net":                    "user name",
		"https://@om.example.net":                       "user name",
		"https://om.example.net/?x=1":                   "query",
		"https://om.example.net?":                       "query",
		"https://om.example.net/#":                      "fragment",
		"https://om.example.net/#x":                     "fragment",
		"https://om.example.net/a%20b":                  "escape",
		"https://om.example.net/a%2Fb":                  "escape",
		"https://om.example.net/a%zz":                   "escape",
		"https://[fe80::1%25eth0]":                      "escape",
		"https://om.example.net/a b":                    "space",
		" https://om.example.net":                       "space",
		"https://om.example.net ":                       "space",
		"https://om.example.net\n":                      "line end",
		"\ufeffhttps://om.example.net":                  "byte order mark",
		"https://om.example.net/\u200b":                 "invisible",
		"https://om.example.net/schlüssel":              "escape",
		`https://om.example.net\om`:                     "is not a URL",
		`https://om.example.net/a\b`:                    "escape",
		"https://om.example.net//om":                    "empty segment",
		"https://om.example.net/../om":                  "dot",
		"https://om.example.net/api/public/v2":          "must end before",
		"https://om.example.net/api/public/v1.0/groups": "must end before",
		"http://om.example.net":                         "plain http",
		"http://10.0.0.1:8080":                          "plain http",
		"https://om.example.net:port":                   "is not a URL",
		"https://om.example.net:":                       "port",
		"https://om.example.net:0":                      "port",
		"https://om.example.net:65536":                  "port",
		`"https://om.example.net"`:                      "",
	} {
		config := goodConfig
		config.BaseURL = bad
		t.Run(bad, func(t *testing.T) { requireConfigError(t, config, "BaseURL", problem) })
	}
}

// What a file, an editor or a word processor adds to a key is named.
func TestAPIKey(t *testing.T) {
	for bad, problem := range map[string]string{
		"": "is missing", "\ufeffs3cret": "byte order mark", "s3cret ": "space", " s3cret": "space", "s3 cret": "space", "s3cret\u00a0": "no-break space",
		"s3cret\n": "line end", "s3cret\r\n": "line end", "s3\ncret": "control", "s3cret\x00": "control", "s3cret\t": "control", "s3\u200bcret": "invisible", "s3cret\u2028": "invisible",
		"s3\u00adcret": "invisible", "s3cret\u3164": "invisible", "s3cret\u2800": "invisible", "s3cret\ufe0f": "invisible", "s3cret\u2003": "invisible", "s3\u034fcret": "invisible", "\xff\xfes3cret": "not UTF-8",
		`"s3cret"`: "quote", "'s3cret'": "quote", "“s3cret”": "quote", "`s3cret`": "quote", "«s3cret»": "quote", `s3cret"`: "quote",
	} {
		private, public := goodConfig, goodConfig
		private.PrivateKey, public.PublicKey = bad, bad
		t.Run(bad, func(t *testing.T) {
			requireConfigError(t, private, "PrivateKey", problem)
			requireConfigError(t, public, "PublicKey", problem)
		})
	}
	inside := goodConfig
	inside.PrivateKey = "s3c'ret"
	requireConfigError(t, inside, "PrivateKey", "quote")
	for _, bad := range []string{"a:b", `a\b`, `a"b`} {
		config := goodConfig
		config.PublicKey = bad
		requireConfigError(t, config, "PublicKey", "digest authentication does not allow")
	}
	config := goodConfig
	config.PublicKey, config.PrivateKey = "o'neil@example.com", "schlüssel-鍵-🔑"
	newClient(t, config)
}

func TestLimitsOfTheConfig(t *testing.T) {
	for field, change := range map[string]func(*opsmanager.Config){
		"RequestsPerSecond": func(c *opsmanager.Config) { c.RequestsPerSecond = -1 },
		"MaxInFlight":       func(c *opsmanager.Config) { c.MaxInFlight = -1 },
		"RequestTimeout":    func(c *opsmanager.Config) { c.RequestTimeout = -1 },
	} {
		config := goodConfig
		change(&config)
		requireConfigError(t, config, field, "must")
	}
}

// A bundle is refused if any of its blocks cannot be read, wherever it is.
func TestCABundle(t *testing.T) {
	first, second := testca.New(t, "first").PEM, testca.New(t, "second").PEM
	join := func(parts ...any) []byte {
		var b bytes.Buffer
		for _, part := range parts {
			switch part := part.(type) {
			case string:
				b.WriteString(part)
			case []byte:
				b.Write(part)
			}
		}
		return b.Bytes()
	}
	lines := strings.SplitAfter(string(second), "\n")
	without := func(at int) string { return strings.Join(lines[:at], "") + strings.Join(lines[at+1:], "") }
	for name, good := range map[string][]byte{
		"two":          join(first, second),
		"comments":     join("# schlüssel: first\nFirst CA\n========\n", first, "\nSHA256 Fingerprint="+strings.Repeat("AB:", 31)+"AB\n"+strings.Repeat("ab", 32)+"\n\n", second, "\n-- the end --\n"),
		"CRLF":         bytes.ReplaceAll(join(first, second), []byte("\n"), []byte("\r\n")),
		"no last line": bytes.TrimRight(join(first, second), "\n"),
	} {
		t.Run(name, func(t *testing.T) {
			config := goodConfig
			config.CAPEM = good
			newClient(t, config)
		})
	}
	for name, bad := range map[string]struct {
		bundle  []byte
		problem string
	}{
		"no certificate":          {[]byte("no certificate"), "no certificate"},
		"missing line end":        {join(bytes.TrimRight(first, "\n"), second), "cannot be read"},
		"damaged Base64":          {join(first, strings.Replace(string(second), lines[2][10:12], "*"+lines[2][11:12], 1)), "cannot be read"},
		"damaged certificate":     {join(first, strings.Replace(string(second), lines[1][:8], "AAAAAAAA", 1)), "cannot be read"},
		"damaged first one":       {join(strings.Replace(string(second), lines[1][:8], "AAAAAAAA", 1), first), "cannot be read"},
		"missing first line":      {join(first, without(0)), "cannot be read"},
		"missing last line":       {join(first, strings.Join(lines[:len(lines)-2], "")), "cannot be read"},
		"missing last line first": {join(strings.Join(lines[:len(lines)-2], ""), first), "cannot be read"},
		"missing dash":            {join(first, "----", strings.TrimPrefix(string(second), "-----")), "cannot be read"},
		"other dashes":            {join(first, strings.ReplaceAll(string(second), "-----", "–––––")), "cannot be read"},
		"indented":                {join(first, "  ", second), "cannot be read"},
		"lower case":              {join(first, strings.ReplaceAll(strings.ReplaceAll(string(second), "BEGIN", "begin"), "END", "end")), "cannot be read"},
		"trusted certificate":     {join(first, strings.ReplaceAll(string(second), "CERTIFICATE", "TRUSTED CERTIFICATE")), "TRUSTED CERTIFICATE"},
		"private key":             {join(first, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})), "PRIVATE KEY"},
		"revocation list":         {join(first, strings.ReplaceAll(string(second), "CERTIFICATE", "X509 CRL")), "X509 CRL"},
		"headers":                 {join(first, strings.Replace(string(second), "-----\n", "-----\nProc-Type: 4\n\n", 1)), "headers"},
		"BOM at the beginning":    {join("\ufeff", first, second), "byte order mark"},
		"BOM between two":         {join(first, "\ufeff", second), "byte order mark"},
		"UTF-16":                  {join(first, "-\x00-\x00B\x00"), "zero byte"},
		"Base64 at the end":       {join(first, second, strings.Join(lines[1:4], "")), "cannot be read"},
		"END at the end":          {join(first, second, "-----END CERTIFICATE-----\n"), "cannot be read"},
		"no line end in between":  {join(first, bytes.ReplaceAll(second, []byte("\n"), nil)), "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			config := goodConfig
			config.CAPEM = bad.bundle
			requireConfigError(t, config, "CAPEM", bad.problem)
		})
	}
}

func TestClientCertificateSetting(t *testing.T) {
	ca := testca.New(t, "clients")
	cert, key := testca.PEM(t, ca.Issue(t, "keyturn"))
	otherCert, otherKey := testca.PEM(t, ca.Issue(t, "other"))
	expired, expiredKey := testca.PEM(t, ca.Issue(t, "expired", testca.Expired))
	later, laterKey := testca.PEM(t, ca.Issue(t, "later", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }))
	block, _ := pem.Decode(key)
	//lint:ignore SA1019 old files have such keys
	legacy, err := x509.EncryptPEMBlock(rand.Reader, "EC PRIVATE KEY", block.Bytes, []byte("password"), x509.PEMCipherAES256)
	require.NoError(t, err)
	for name, good := range map[string][2][]byte{
		"one":               {cert, key},
		"with its issuer":   {append(bytes.Clone(cert), ca.PEM...), key},
		"EC with its curve": ecPair(t),
	} {
		t.Run(name, func(t *testing.T) {
			config := goodConfig
			config.ClientCertPEM, config.ClientKeyPEM = good[0], good[1]
			newClient(t, config)
		})
	}
	for name, bad := range map[string]struct {
		cert, key      []byte
		field, problem string
	}{
		"no key":            {cert, nil, "ClientKeyPEM", "is required"},
		"no certificate":    {nil, key, "ClientCertPEM", "is required"},
		"another key":       {cert, otherKey, "ClientKeyPEM", "does not belong"},
		"another first one": {append(bytes.Clone(otherCert), cert...), key, "ClientKeyPEM", "does not belong"},
		"expired":           {expired, expiredKey, "ClientCertPEM", "expired at"},
		"not yet valid":     {later, laterKey, "ClientCertPEM", "not valid before"},
		"encrypted":         {cert, pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}), "ClientKeyPEM", "encrypted"},
		"encrypted, old":    {cert, pem.EncodeToMemory(legacy), "ClientKeyPEM", "encrypted"},
		"swapped":           {key, cert, "ClientCertPEM", "PRIVATE KEY"},
		"certificate twice": {cert, cert, "ClientKeyPEM", "CERTIFICATE"},
		"two keys":          {cert, append(bytes.Clone(key), otherKey...), "ClientKeyPEM", "2 private keys"},
		"text":              {cert, []byte("x"), "ClientKeyPEM", "0 private keys"},
		"damaged key":       {cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), "ClientKeyPEM", "cannot be read"},
		"damaged chain":     {append(bytes.Clone(cert), bytes.TrimLeft(ca.PEM, "-")...), key, "ClientCertPEM", "cannot be read"},
		"BOM in the key":    {cert, append([]byte("\ufeff"), key...), "ClientKeyPEM", "byte order mark"},
	} {
		t.Run(name, func(t *testing.T) {
			config := goodConfig
			config.ClientCertPEM, config.ClientKeyPEM = bad.cert, bad.key
			requireConfigError(t, config, bad.field, bad.problem)
		})
	}
}

// ecPair has a key as openssl ecparam -genkey writes it.
func ecPair(t *testing.T) [2][]byte {
	t.Helper()
	pair := testca.New(t, "clients").Issue(t, "keyturn")
	key, err := x509.MarshalECPrivateKey(pair.PrivateKey.(*ecdsa.PrivateKey))
	require.NoError(t, err)
	require.Equal(t, elliptic.P256(), pair.PrivateKey.(*ecdsa.PrivateKey).Curve)
	cert, _ := testca.PEM(t, pair)
	curve := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}})
	return [2][]byte{cert, append(curve, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key})...)}
}

func TestProxyVariableIsChecked(t *testing.T) {
	for _, bad := range []string{"http://proxy.example.net:port", "http://", "ftp://proxy.example.net", "proxy.example.net:99999", "a b"} {
		t.Setenv("HTTPS_PROXY", bad)
		requireConfigError(t, goodConfig, "Proxy", "HTTPS_PROXY")
	}
	for _, good := range []string{"", "proxy.example.net", "proxy.example.net:3128", "http://u:p%40@proxy.example.net:3128/", "https://proxy.example.net", "socks5://[::1]:1080"} {
		t.Setenv("HTTPS_PROXY", good)
		newClient(t, goodConfig)
	}
}

// Reconfigure changes what calls use, also while others are in progress.
func TestReconfigure(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	client := newClient(t, configFor(om))
	_, err := client.EncryptionKey(t.Context(), project, set.ID)
	require.NoError(t, err)

	renewed := configFor(om)
	renewed.PublicKey, renewed.PrivateKey = "renewed", "another-private-key"
	om.Inject(simulator.PutsGated(set.ID))
	inProgress := make(chan error, 1)
	go func() { inProgress <- client.RotateEncryptionKey(t.Context(), project, set.ID, nil) }()
	require.NoError(t, om.Await(t.Context(), func(l simulator.Ledger) bool { return len(l.Applied(set.ID)) == 1 }))

	om.RemoveAPIKey(simulator.DefaultPublicKey)
	om.AddAPIKey(simulator.APIKey{PublicKey: renewed.PublicKey, PrivateKey: renewed.PrivateKey})
	bad := renewed
	bad.PrivateKey = "another private key"
	assert.ErrorContains(t, client.Reconfigure(bad), "PrivateKey: contains a space")
	bad = renewed
	bad.BaseURL += "/om"
	assert.ErrorContains(t, client.Reconfigure(bad), "BaseURL: cannot be changed")
	_, err = client.EncryptionKey(t.Context(), project, set.ID)
	requireError(t, err, opsmanager.Unauthorized)

	before := client.SessionID()
	assert.NotEqual(t, before, newClient(t, configFor(om)).SessionID())
	require.NoError(t, client.Reconfigure(renewed))
	assert.NotEqual(t, before, client.SessionID())
	_, err = client.EncryptionKey(t.Context(), project, set.ID)
	require.NoError(t, err)
	om.ClearFaults()
	require.NoError(t, <-inProgress, "a call in progress ends with the old key")
	require.NoError(t, client.RotateEncryptionKey(t.Context(), project, set.ID, nil))
}

// A request that is refused is sent again if the credentials have been replaced, and
// fails if they have not.
func TestRefusedRequestIsSentAgainWithNewCredentials(t *testing.T) {
	om := simulator.Start(t, simulator.Options{})
	set := om.AddReplicaSet(project, "audit")
	renewed := configFor(om)
	renewed.PublicKey, renewed.PrivateKey = "renewed", "another-private-key"
	var client *opsmanager.Client
	isRenewed, refusals := false, 0
	config := configFor(om)
	config.OnRefused = func() {
		refusals++
		if isRenewed {
			assert.NoError(t, client.Reconfigure(renewed))
		}
	}
	client = newClient(t, config)
	_, err := client.EncryptionKey(t.Context(), project, set.ID)
	require.NoError(t, err)
	om.RemoveAPIKey(simulator.DefaultPublicKey)
	requireError(t, client.RotateEncryptionKey(t.Context(), project, set.ID, nil), opsmanager.Unauthorized)
	require.Equal(t, 1, refusals)

	om.AddAPIKey(simulator.APIKey{PublicKey: renewed.PublicKey, PrivateKey: renewed.PrivateKey})
	isRenewed = true
	require.NoError(t, client.RotateEncryptionKey(t.Context(), project, set.ID, nil))
	assert.Len(t, om.Ledger().Applied(set.ID), 1)
	assert.Equal(t, 2, refusals)

	om.RemoveAPIKey(renewed.PublicKey)
	requireError(t, client.RotateEncryptionKey(t.Context(), project, set.ID, nil), opsmanager.Unauthorized)
	assert.Equal(t, 3, refusals, "a request is sent again once")
}

func TestServiceVersion(t *testing.T) {
	for header, want := range map[string]opsmanager.ServiceVersion{
		"gitHash=4c1f0d2e9b; versionString=8.0.6.500.20250401T1200Z": {Text: "8.0.6.500.20250401T1200Z", Major: 8},
		`versionString="7.10.2";gitHash=x`:                           {Text: "7.10.2", Major: 7, Minor: 10},
		"gitHash=x; VersionString = v20250401":                       {Text: "v20250401"},
		"6.0.1":                                                      {Text: "6.0.1", Major: 6},
		"gitHash=4c1f0d2e9b":                                         {},
		"versionString=; gitHash=1":                                  {},
		"none":                                                       {},
	} {
		om := simulator.Start(t, simulator.Options{ServiceVersion: header})
		set := om.AddReplicaSet(project, "audit")
		client := newClient(t, configFor(om))
		assert.Zero(t, client.ServiceVersion())
		require.NoError(t, client.CheckAccess(t.Context()))
		assert.Equal(t, want, client.ServiceVersion(), header)
		require.NoError(t, client.RotateEncryptionKey(t.Context(), project, set.ID, nil))
		assert.Equal(t, want, client.ServiceVersion(), "a response without the header changes nothing")
	}
}
