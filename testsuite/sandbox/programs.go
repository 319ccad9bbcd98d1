package main

import (
	"errors"
	"os"
	"path/filepath"
)

// folder is a temporary one for all that the sandbox writes.
type folder string

func newFolder() (folder, error) {
	made, err := os.MkdirTemp("", "keyturn-sandbox-")
	if err != nil {
		return "", err
	}
	f := folder(made)
	return f, errors.Join(os.Mkdir(f.binaries(), 0o700), os.Mkdir(f.scratch(), 0o700))
}

func (f folder) path(name string) string   { return filepath.Join(string(f), name) }
func (f folder) binaries() string          { return f.path("bin") }
func (f folder) binary(name string) string { return filepath.Join(f.binaries(), name) }
func (f folder) scratch() string           { return f.path("build") }
func (f folder) workerLog() string         { return f.path("worker.log") }
func (f folder) privateKey() string        { return f.path("private-key") }
func (f folder) removeAll() error          { return os.RemoveAll(string(f)) }

// removeAllButLog leaves what may tell why something has failed.
func (f folder) removeAllButLog() error {
	return errors.Join(os.RemoveAll(f.binaries()), os.RemoveAll(f.scratch()), os.RemoveAll(f.privateKey()))
}
