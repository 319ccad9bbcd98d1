package temporalserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockInterval is the time between two attempts to lock.
const lockInterval = 200 * time.Millisecond

// cache is a directory that only this user can change, with what was downloaded,
// the output of a build, and the lock of both.
type cache struct{ directory string }

// cacheDirectories returns the user's cache, and the fallback for a user whose
// cache cannot be written, as in a container.
func cacheDirectories() []string {
	temporary := filepath.Join(os.TempDir(), "keyturn-"+strconv.Itoa(os.Getuid()))
	base, err := os.UserCacheDir()
	if err != nil {
		return []string{temporary}
	}
	return []string{filepath.Join(base, "keyturn"), temporary}
}

// openCache returns the first cache that can be written.
func openCache() (cache, error) {
	var failures []error
	for _, directory := range cacheDirectories() {
		c := cache{directory}
		err := c.prepare()
		if err == nil {
			return c, nil
		}
		failures = append(failures, err)
	}
	return cache{}, fmt.Errorf("there is no directory for the Temporal CLI: %w", errors.Join(failures...))
}

func (c cache) prepare() error {
	if err := os.MkdirAll(c.directory, 0o700); err != nil {
		return err
	}
	if !isOwn(c.directory) {
		return fmt.Errorf("%s belongs to another user", c.directory)
	}
	file, err := os.OpenFile(c.lock(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return file.Close()
}

// isOwn reports whether no other user could have made a directory or a file in
// it: the temporary directory is everybody's.
func isOwn(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() || info.Mode().Perm()&0o022 != 0 {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid()
}

func (c cache) lock() string        { return filepath.Join(c.directory, "temporal.lock") }
func (c cache) buildOutput() string { return filepath.Join(c.directory, "temporal-build.out") }
func (c cache) buildErrors() string { return filepath.Join(c.directory, "temporal-build.err") }

// built has the path of the CLI of a version that was built.
func (c cache) built(version string) string {
	return filepath.Join(c.directory, "temporal-"+version+".built")
}

// downloadedPath is where a directory of [cacheDirectories] has the official CLI
// of a version.
func downloadedPath(directory, version string) string {
	return filepath.Join(directory, "temporal-"+version)
}

// lockFile is a lock that a program holds until it closes the file.
type lockFile = os.File

// acquireLock waits for the lock on a file.
func acquireLock(ctx context.Context, path string) (*lockFile, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the Temporal CLI: %w", err)
	}
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return file, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			file.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, ErrNotReady
		case <-time.After(lockInterval):
		}
	}
}
