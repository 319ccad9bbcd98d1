package main

import (
	"errors"
	"os"
	"path/filepath"
)

// folder is a temporary directory for all files of the sandbox.
type folder string

func newFolder() (folder, error) {
	made, err := os.MkdirTemp("", "keyturn-sandbox-")
	if err != nil {
		return "", err
	}
	f := folder(made)
	return f, errors.Join(os.Mkdir(f.binaries(), 0o700), os.Mkdir(f.scratch(), 0o700), os.Mkdir(f.ledger(), 0o700))
}

func (f folder) path(name string) string   { return filepath.Join(string(f), name) }
func (f folder) binaries() string          { return f.path("bin") }
func (f folder) binary(name string) string { return filepath.Join(f.binaries(), name) }
func (f folder) scratch() string           { return f.path("build") }
func (f folder) workerLog() string         { return f.path("worker.log") }
func (f folder) privateKey() string        { return f.path("private-key") }
func (f folder) kmip() string              { return f.path("kmip") }
func (f folder) ledger() string            { return f.path("ledger") }
func (f folder) removeAll() error          { return os.RemoveAll(string(f)) }

// removeAllButLog keeps the log, which may show why something failed.
func (f folder) removeAllButLog() error {
	return errors.Join(os.RemoveAll(f.binaries()), os.RemoveAll(f.scratch()), os.RemoveAll(f.privateKey()), os.RemoveAll(f.kmip()), os.RemoveAll(f.ledger()))
}
