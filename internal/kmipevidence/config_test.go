package kmipevidence_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/kmipevidence"
	"keyturn/internal/setting"
	"keyturn/testsuite/support/testca"
)

func TestConfig(t *testing.T) {
	ca := testca.New(t, "authority")
	certificate, key := testca.PEM(t, ca.Issue(t, "client"))
	expired, expiredKey := testca.PEM(t, ca.Issue(t, "client", testca.Expired))
	early, earlyKey := testca.PEM(t, ca.Issue(t, "client", func(template *x509.Certificate) {
		template.NotBefore = time.Now().Add(time.Hour)
	}))
	_, otherKey := testca.PEM(t, ca.Issue(t, "client"))
	damaged := bytes.Replace(bytes.Clone(ca.PEM), []byte("\nM"), []byte("\n!"), 1)
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}})
	directory := t.TempDir()
	file := func(contents ...[]byte) string {
		file, err := os.CreateTemp(directory, "*.pem")
		require.NoError(t, err)
		_, err = file.Write(bytes.Join(contents, nil))
		require.NoError(t, err)
		require.NoError(t, file.Close())
		return file.Name()
	}
	caFile, certificateFile, keyFile := file(ca.PEM), file(certificate), file(key)
	good := func() kmipevidence.Config {
		return kmipevidence.Config{Address: "kmip.example.com:5696", CAFile: caFile, ClientCertFile: certificateFile, ClientKeyFile: keyFile}
	}

	for name, change := range map[string]func(*kmipevidence.Config){
		"all set":             func(*kmipevidence.Config) {},
		"only the address":    func(c *kmipevidence.Config) { *c = kmipevidence.Config{Address: "[::1]:5696"} },
		"server name":         func(c *kmipevidence.Config) { c.ServerName = "kmip" },
		"server address":      func(c *kmipevidence.Config) { c.ServerName = "::1" },
		"several authorities": func(c *kmipevidence.Config) { c.CAFile = file([]byte("a comment\n"), ca.PEM, testca.New(t, "b").PEM) },
	} {
		t.Run(name, func(t *testing.T) {
			config := good()
			change(&config)
			assert.NoError(t, config.Validate())
		})
	}
	for name, test := range map[string]struct {
		change           func(*kmipevidence.Config)
		setting, problem string
	}{
		"no address":                      {func(c *kmipevidence.Config) { c.Address = "" }, "KMIP_ADDRESS", "is required"},
		"no port":                         {func(c *kmipevidence.Config) { c.Address = "kmip" }, "KMIP_ADDRESS", "host:port"},
		"no host":                         {func(c *kmipevidence.Config) { c.Address = ":5696" }, "KMIP_ADDRESS", "host:port"},
		"port 0":                          {func(c *kmipevidence.Config) { c.Address = "kmip:0" }, "KMIP_ADDRESS", "host:port"},
		"port 70000":                      {func(c *kmipevidence.Config) { c.Address = "kmip:70000" }, "KMIP_ADDRESS", "host:port"},
		"URL":                             {func(c *kmipevidence.Config) { c.Address = "https://kmip:5696" }, "KMIP_ADDRESS", "host:port"},
		"server name with port":           {func(c *kmipevidence.Config) { c.ServerName = "kmip:5696" }, "KMIP_SERVER_NAME", "without a port"},
		"no CA file":                      {func(c *kmipevidence.Config) { c.CAFile = "/does/not/exist" }, "KMIP_CA_FILE", "no such file"},
		"certificate and key in one file": {func(c *kmipevidence.Config) { c.ClientCertFile = file(certificate, key) }, "KMIP_CLIENT_CERT_FILE", "not a plain CERTIFICATE but PRIVATE KEY"},
		"CA without PEM":                  {func(c *kmipevidence.Config) { c.CAFile = file([]byte("secret text")) }, "KMIP_CA_FILE", "no certificate in PEM"},
		"CA with a damaged block":         {func(c *kmipevidence.Config) { c.CAFile = file(ca.PEM, damaged) }, "KMIP_CA_FILE", "cannot be read"},
		"CA with a foreign block":         {func(c *kmipevidence.Config) { c.CAFile = file(ca.PEM, key) }, "KMIP_CA_FILE", "not a plain CERTIFICATE but PRIVATE KEY"},
		"CA with no certificate": {func(c *kmipevidence.Config) {
			c.CAFile = file(ca.PEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}))
		}, "KMIP_CA_FILE", "cannot be read"},
		"CA expired":              {func(c *kmipevidence.Config) { c.CAFile = file(expired) }, "KMIP_CA_FILE", "has expired"},
		"key missing":             {func(c *kmipevidence.Config) { c.ClientKeyFile = "" }, "KMIP_CLIENT_KEY_FILE", "is required with"},
		"certificate missing":     {func(c *kmipevidence.Config) { c.ClientCertFile = "" }, "KMIP_CLIENT_CERT_FILE", "is required with"},
		"certificate unreadable":  {func(c *kmipevidence.Config) { c.ClientCertFile = directory }, "KMIP_CLIENT_CERT_FILE", "is a directory"},
		"key for the certificate": {func(c *kmipevidence.Config) { c.ClientCertFile = keyFile }, "KMIP_CLIENT_CERT_FILE", "not a plain CERTIFICATE"},
		"certificate for the key": {func(c *kmipevidence.Config) { c.ClientKeyFile = certificateFile }, "KMIP_CLIENT_KEY_FILE", "is not a private key but CERTIFICATE"},
		"another key":             {func(c *kmipevidence.Config) { c.ClientKeyFile = file(otherKey) }, "KMIP_CLIENT_KEY_FILE", "does not belong to the client certificate"},
		"encrypted key":           {func(c *kmipevidence.Config) { c.ClientKeyFile = file(encrypted) }, "KMIP_CLIENT_KEY_FILE", "is encrypted"},
		"certificate expired": {func(c *kmipevidence.Config) { c.ClientCertFile, c.ClientKeyFile = file(expired), file(expiredKey) },
			"KMIP_CLIENT_CERT_FILE", "expired at "},
		"certificate not valid yet": {func(c *kmipevidence.Config) { c.ClientCertFile, c.ClientKeyFile = file(early), file(earlyKey) },
			"KMIP_CLIENT_CERT_FILE", "is not valid before "},
		"negative timeout": {func(c *kmipevidence.Config) { c.Timeout = -1 }, "Timeout", "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			config := good()
			test.change(&config)
			_, err := kmipevidence.New(config)
			var fault *setting.Error
			require.ErrorAs(t, err, &fault)
			assert.Equal(t, test.setting, fault.Setting)
			assert.Contains(t, fault.Problem, test.problem)
			assert.NotContains(t, err.Error(), "secret text")
			for _, path := range []string{config.CAFile, config.ClientCertFile, config.ClientKeyFile} {
				assert.True(t, path == "" || !strings.Contains(err.Error(), path), "a secret may stand in place of a file's name: %v", err)
			}

			config.Label = func(name string) string { return "emea." + name }
			assert.ErrorContains(t, config.Validate(), "emea."+test.setting+": ")
		})
	}
}

// TestCertificateThatExpiresInUseIsNamed is about a client that outlives its
// certificate.
func TestCertificateThatExpiresInUseIsNamed(t *testing.T) {
	ca := testca.New(t, "authority")
	config := kmipevidence.Config{Address: "127.0.0.1:1", CAFile: writeCA(t, ca)}
	config.ClientCertFile, config.ClientKeyFile = writePair(t, ca)
	client := newClient(t, config)
	kmipevidence.ExpireCertificate(client)
	evidence := client.Ask(t.Context(), "1")
	assert.Equal(t, kmipevidence.OutcomeUnreachable, evidence.Outcome)
	assert.Contains(t, evidence.Message, "KMIP_CLIENT_CERT_FILE: the certificate expired at ")
	assert.ErrorContains(t, client.Check(t.Context()), "replace it")
}
