package kmipsimulator

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"keyturn/testsuite/support/kmipkeys"
)

// The files in Options.Directory.
const (
	authorityFile    = "ca.pem"
	authorityKeyFile = "ca.key"
	keysFile         = "keys.json"
)

// load reads the authority and the keys of an earlier server, or makes an
// authority.
func (s *Server) load() (err error) {
	if s.options.Directory == "" {
		s.authority, err = kmipkeys.NewAuthority()
		return err
	}
	certificate, certificateErr := os.ReadFile(s.path(authorityFile))
	private, keyErr := os.ReadFile(s.path(authorityKeyFile))
	switch err := errors.Join(certificateErr, keyErr); {
	case errors.Is(err, fs.ErrNotExist):
		return s.makeAuthority()
	case err != nil:
		return err
	}
	if s.authority, err = kmipkeys.LoadAuthority(certificate, private); err != nil {
		return err
	}
	content, err := os.ReadFile(s.path(keysFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(content, &s.keys)
}

func (s *Server) makeAuthority() (err error) {
	if s.authority, err = kmipkeys.NewAuthority(); err != nil {
		return err
	}
	if err := os.WriteFile(s.path(authorityKeyFile), s.authority.KeyPEM, 0o600); err != nil {
		return err
	}
	return os.WriteFile(s.path(authorityFile), s.authority.PEM, 0o600)
}

// save replaces the file of the keys. The caller holds s.mu.
func (s *Server) save() error {
	if s.options.Directory == "" {
		return nil
	}
	content, err := json.Marshal(s.keys)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path(keysFile+".new"), content, 0o600); err != nil {
		return err
	}
	return os.Rename(s.path(keysFile+".new"), s.path(keysFile))
}

func (s *Server) path(name string) string { return filepath.Join(s.options.Directory, name) }
