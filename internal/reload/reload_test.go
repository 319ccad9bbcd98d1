package reload_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/reload"
)

// follow is a value of one file, whose text must end with a full stop.
func follow(t *testing.T, path string, interval time.Duration, apply func(before, now string) error) *reload.Value[string] {
	t.Helper()
	v, err := reload.New(reload.Options[string]{
		Load: func() (string, error) {
			text, err := os.ReadFile(path)
			if err == nil && !strings.HasSuffix(string(text), ".") {
				err = errors.New("half written")
			}
			return string(text), err
		},
		Same:  func(before, now string) bool { return before == now },
		Apply: apply, Interval: interval,
	})
	require.NoError(t, err)
	return v
}

func TestEveryWayToReplaceAFileIsFollowed(t *testing.T) {
	directory := t.TempDir()
	at := func(name string) string { return filepath.Join(directory, name) }
	write := func(name, text string) { require.NoError(t, os.WriteFile(at(name), []byte(text), 0o600)) }
	// As in a Kubernetes volume, the file is a link into a link to a directory.
	require.NoError(t, os.Mkdir(at("one"), 0o700))
	require.NoError(t, os.Mkdir(at("two"), 0o700))
	write("one/key", "one.")
	write("two/key", "two.")
	require.NoError(t, os.Symlink("one", at("data")))
	require.NoError(t, os.Symlink("data/key", at("key")))
	v := follow(t, at("key"), time.Nanosecond, nil)
	assert.Equal(t, "one.", v.Latest())

	require.NoError(t, os.Symlink("two", at("new")))
	require.NoError(t, os.Rename(at("new"), at("data")))
	assert.Equal(t, "two.", v.Latest())

	before, err := os.Stat(at("two/key"))
	require.NoError(t, err)
	write("two/key", "six.") // of the same size, and at the same time
	require.NoError(t, os.Chtimes(at("two/key"), before.ModTime(), before.ModTime()))
	assert.Equal(t, "six.", v.Latest())

	write("renamed", "renamed.")
	require.NoError(t, os.Rename(at("renamed"), at("key")))
	assert.Equal(t, "renamed.", v.Latest())
}

func TestFilesThatCannotBeUsedChangeNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	write("one.")
	v := follow(t, path, time.Nanosecond, func(_, now string) error {
		if now == "refused." {
			return errors.New("refused")
		}
		return nil
	})
	for _, text := range []string{"", "tw", "refused."} {
		write(text)
		assert.Equal(t, "one.", v.Latest(), text)
		assert.Error(t, v.Problem(), text)
	}
	require.NoError(t, os.Remove(path))
	require.ErrorIs(t, v.Refresh(), os.ErrNotExist)
	assert.Zero(t, v.Changes())
	write("two.")
	require.NoError(t, v.Refresh())
	assert.Equal(t, "two.", v.Latest())
	require.NoError(t, v.Refresh())
	assert.Equal(t, 1, v.Changes())
}

func TestFilesAreReadAgainAfterTheIntervalOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(path, []byte("one."), 0o600))
	v := follow(t, path, time.Hour, nil)
	require.NoError(t, os.WriteFile(path, []byte("two."), 0o600))
	assert.Equal(t, "one.", v.Latest())
	require.NoError(t, v.Refresh())
	assert.Equal(t, "two.", v.Latest())
}
