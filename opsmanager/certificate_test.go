package opsmanager_test

import (
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
	"keyturn/testsuite/authority"
	"keyturn/testsuite/simulator"
)

func TestCertificates(t *testing.T) {
	private := authority.New(t, "private authority")
	foreign := authority.New(t, "foreign authority")
	for name, test := range map[string]struct {
		signer *authority.Authority
		adjust []func(*x509.Certificate)
		fault  opsmanager.CertificateFault
		detail string
	}{
		"right":           {signer: private},
		"foreign":         {foreign, nil, opsmanager.CertificateUntrusted, "certificate signed by unknown authority"},
		"expired":         {private, []func(*x509.Certificate){authority.Expired}, opsmanager.CertificateExpired, "certificate has expired"},
		"of another name": {private, []func(*x509.Certificate){authority.For("om.example.net")}, opsmanager.CertificateOfAnother, "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			om := simulator.StartWith(t, simulator.Options{}, test.signer.Issue(t, "Ops Manager", test.adjust...))
			set := om.AddReplicaSet(project, "audit")
			config := configFor(om)
			config.CAPEM = private.PEM
			err := newClient(t, config).RotateEncryptionKey(t.Context(), project, set.ID, nil)
			if test.fault == "" {
				require.NoError(t, err)
				return
			}
			apiError := requireError(t, err, opsmanager.Unavailable)
			assert.False(t, apiError.OutcomeUnknown, "nothing was sent")
			assert.Equal(t, test.fault, apiError.CertificateFault())
			assert.Contains(t, err.Error(), test.detail)
			assert.Empty(t, om.Ledger().Requests)
		})
	}
}

// Without a private authority, the system's are the ones that are trusted.
func TestPrivateAuthorityMustBeNamed(t *testing.T) {
	om := simulator.StartTLS(t, simulator.Options{})
	config := configFor(om)
	config.CAPEM = nil
	_, err := newClient(t, config).EncryptionKey(t.Context(), project, om.AddReplicaSet(project, "audit").ID)
	assert.Equal(t, opsmanager.CertificateUntrusted, requireError(t, err, opsmanager.Unavailable).CertificateFault())
}
