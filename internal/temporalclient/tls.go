package temporalclient

import (
	"strings"

	"go.temporal.io/sdk/contrib/envconfig"

	"keyturn/internal/pemtext"
	"keyturn/internal/setting"
	"keyturn/internal/temporalclient/tlsdiag"
)

const anyTLSVariable = "TEMPORAL_TLS_*"

// checkTLS reads the files and the PEM texts that envconfig reads again, whose
// errors would show paths, and which takes a bundle that is partly damaged.
//
// What they hold becomes the contents of the settings.
func (s *settings) checkTLS() error {
	tls := s.profile.TLS
	if tls == nil {
		return nil
	}
	s.contents.tls = envconfig.ClientConfigTLS{
		Disabled: tls.Disabled, ServerName: tls.ServerName, DisableHostVerification: tls.DisableHostVerification,
	}
	if tls.Disabled {
		return nil
	}
	authority, err := s.readPEM("server_ca_cert", tls.ServerCACertPath, tls.ServerCACertData)
	if err != nil {
		return err
	}
	if authority.text != nil {
		if _, err := pemtext.Certificates(authority.text); err != nil {
			return setting.Errorf(authority.name, "%v", err)
		}
	}
	certificate, err := s.readPEM("client_cert", tls.ClientCertPath, tls.ClientCertData)
	if err != nil {
		return err
	}
	key, err := s.readPEM("client_key", tls.ClientKeyPath, tls.ClientKeyData)
	if err != nil {
		return err
	}
	if err := checkPair(certificate, key); err != nil {
		return err
	}
	s.contents.tls.ServerCACertData, s.contents.tls.ClientCertData, s.contents.tls.ClientKeyData = authority.text, certificate.text, key.text
	return checkHost(s.tlsName(tlsdiag.ServerNameVariable), tls.ServerName)
}

// tlsName returns what the user calls a setting that tlsdiag names by its variable.
func (s settings) tlsName(variable string) string {
	switch variable {
	case AddressVariable:
		return s.name(AddressVariable, "address")
	case tlsdiag.ServerNameVariable:
		return s.name(variable, "tls", "server_name")
	case tlsdiag.TLSVariable:
		return s.name(variable, "tls", "disabled")
	case tlsdiag.CAVariable:
		return s.pemName("server_ca_cert", s.profile.TLS != nil && len(s.profile.TLS.ServerCACertData) > 0)
	case tlsdiag.ClientVariable:
		return s.pemName("client_cert", s.profile.TLS != nil && len(s.profile.TLS.ClientCertData) > 0)
	}
	return variable
}

// pemName returns what the user calls a setting of PEM, which is given as a path or
// as data.
func (s settings) pemName(key string, isData bool) string {
	suffix := "_path"
	if isData {
		suffix = "_data"
	}
	return s.name("TEMPORAL_TLS_"+strings.ToUpper(key+suffix), "tls", key+suffix)
}

// pemText is the text of a setting in PEM; nil = it is not set.
type pemText struct {
	name   string
	isPath bool
	text   []byte
}

// readPEM returns what the path or the data of a TLS setting holds.
func (s settings) readPEM(key, path string, data []byte) (pemText, error) {
	pathName, dataName := s.pemName(key, false), s.pemName(key, true)
	switch {
	case path != "" && len(data) > 0:
		return pemText{}, setting.Errorf(pathName, "%s is also set: set only one of them", dataName)
	case path != "":
		text, err := setting.ReadFile(pathName, path)
		return pemText{pathName, true, text}, err
	case len(data) > 0:
		return pemText{dataName, false, data}, nil
	default:
		return pemText{name: pathName}, nil
	}
}

func checkPair(certificate, key pemText) error {
	switch {
	case certificate.text == nil && key.text == nil:
		return nil
	case certificate.text == nil:
		return setting.Errorf(certificate.name, "is required: %s is set", key.name)
	case key.text == nil:
		return setting.Errorf(key.name, "is required: %s is set", certificate.name)
	case certificate.isPath != key.isPath:
		return setting.Errorf(key.name, "must be of the same kind as %s: both paths, or both data", certificate.name)
	}
	switch _, certificateErr, keyErr := pemtext.KeyPair(certificate.text, key.text); {
	case certificateErr != nil:
		return setting.Errorf(certificate.name, "%v", certificateErr)
	case keyErr != nil:
		return setting.Errorf(key.name, "%v", keyErr)
	}
	return nil
}
