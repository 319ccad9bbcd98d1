package main

import (
	"archive/tar"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// tree writes the files of an image as a tar archive. After the first error,
// its methods do nothing.
type tree struct {
	out     *tar.Writer
	written map[string]bool
	err     error
}

func newTree(out io.Writer) *tree {
	return &tree{out: tar.NewWriter(out), written: map[string]bool{}}
}

func (t *tree) close() error {
	if t.err != nil {
		return t.err
	}
	return t.out.Close()
}

func (t *tree) folder(name string, owner int, mode int64) {
	t.parents(name)
	t.header(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, Uid: owner, Gid: owner})
}

func (t *tree) text(name, text string) {
	t.parents(name)
	if t.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(text))}) {
		_, t.err = io.WriteString(t.out, text)
	}
}

// copyFile copies a file, or the target of a link.
func (t *tree) copyFile(from, to string) {
	t.parents(to)
	if t.err != nil || t.written[to] {
		return
	}
	file, err := os.Open(from)
	if err != nil {
		t.err = err
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.err = err
		return
	}
	mode := int64(0o644 | info.Mode().Perm()&0o111)
	if t.header(&tar.Header{Typeflag: tar.TypeReg, Name: to, Mode: mode, Size: info.Size()}) {
		_, t.err = io.Copy(t.out, file)
	}
}

func (t *tree) copyFolder(from, to string) {
	if t.err != nil {
		return
	}
	t.err = filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		inside := path.Join(to, filepath.ToSlash(relative))
		if entry.IsDir() {
			t.folder(inside, 0, 0o755)
		} else if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
			t.copyFile(name, inside)
		}
		return t.err
	})
}

func (t *tree) parents(name string) {
	if parent := path.Dir(name); parent != "/" && !t.written[parent] {
		t.folder(parent, 0, 0o755)
	}
}

// header writes an entry unless the archive has one with this name.
func (t *tree) header(h *tar.Header) bool {
	if t.err != nil || t.written[h.Name] {
		return false
	}
	t.written[h.Name] = true
	archived := *h
	archived.Name = strings.TrimPrefix(h.Name, "/")
	t.err = t.out.WriteHeader(&archived)
	return t.err == nil
}
