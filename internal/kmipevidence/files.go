package kmipevidence

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	"keyturn/internal/pemtext"
	"keyturn/internal/reload"
	"keyturn/internal/setting"
)

// credentials are what the files held at one time, checked.
type credentials struct {
	tls         *tls.Config
	fingerprint [sha256.Size]byte // of the files' contents
	notAfter    time.Time         // of the client certificate; zero = there is none
}

// checkExpiry reports a client certificate that has expired since it was read.
func (c Config) checkExpiry(current *credentials, now time.Time) error {
	if current.notAfter.IsZero() || !now.After(current.notAfter) {
		return nil
	}
	return c.fault(SettingClientCertFile, "the certificate expired at %s: replace it", current.notAfter.UTC().Format(time.RFC3339))
}

// follow returns what the files hold, now and later.
func (c Config) follow(interval time.Duration) (*reload.Value[*credentials], error) {
	return reload.New(reload.Options[*credentials]{
		Load:     func() (*credentials, error) { return c.load(time.Now()) },
		Same:     func(before, now *credentials) bool { return before.fingerprint == now.fingerprint },
		Interval: interval,
	})
}

// load checks the settings and reads the files.
func (c Config) load(now time.Time) (*credentials, error) {
	if err := c.checkNames(); err != nil {
		return nil, err
	}
	hash := sha256.New()
	loaded := &credentials{tls: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.serverName()}}
	if c.CAFile != "" {
		content, err := c.readFile(SettingCAFile, c.CAFile)
		if err != nil {
			return nil, err
		}
		hash.Write(content)
		if loaded.tls.RootCAs, err = c.parseAuthorities(content, now); err != nil {
			return nil, err
		}
	}
	if c.ClientCertFile != "" {
		certificate, err := c.readFile(SettingClientCertFile, c.ClientCertFile)
		if err != nil {
			return nil, err
		}
		key, err := c.readFile(SettingClientKeyFile, c.ClientKeyFile)
		if err != nil {
			return nil, err
		}
		hash.Write(certificate)
		hash.Write(key)
		pair, err := c.parseKeyPair(certificate, key, now)
		if err != nil {
			return nil, err
		}
		// It is sent whatever authorities the server lists: crypto/tls would else
		// send none where its issuer is not among them, and the server's reason
		// for the refusal would be a misleading one.
		loaded.tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		loaded.notAfter = pair.Leaf.NotAfter
	}
	hash.Sum(loaded.fingerprint[:0])
	return loaded, nil
}

func (c Config) readFile(name, path string) ([]byte, error) {
	content, err := setting.ReadFile(name, path)
	var fault *setting.Error
	if errors.As(err, &fault) {
		return nil, c.fault(name, "%s", fault.Problem)
	}
	return content, err
}

func (c Config) parseAuthorities(content []byte, now time.Time) (*x509.CertPool, error) {
	certificates, err := pemtext.Certificates(content)
	if err != nil {
		return nil, c.fault(SettingCAFile, "%v", err)
	}
	pool := x509.NewCertPool()
	last := certificates[0]
	for _, certificate := range certificates {
		pool.AddCert(certificate)
		if certificate.NotAfter.After(last.NotAfter) {
			last = certificate
		}
	}
	if now.After(last.NotAfter) {
		return nil, c.fault(SettingCAFile, "every certificate in it has expired, the last one at %s", last.NotAfter.UTC().Format(time.RFC3339))
	}
	return pool, nil
}

func (c Config) parseKeyPair(certificate, key []byte, now time.Time) (tls.Certificate, error) {
	pair, certificateErr, keyErr := pemtext.KeyPair(certificate, key)
	switch {
	case certificateErr != nil:
		return tls.Certificate{}, c.fault(SettingClientCertFile, "%v", certificateErr)
	case keyErr != nil:
		return tls.Certificate{}, c.fault(SettingClientKeyFile, "%v", keyErr)
	}
	if err := pemtext.CheckValidity(pair.Leaf, now); err != nil {
		return tls.Certificate{}, c.fault(SettingClientCertFile, "%v", err)
	}
	return pair, nil
}
