package temporalserver

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	officialScript = "#!/bin/sh\necho 'temporal version 9.8.7 (Server 1.2.3, UI 4.5.6)'\n"
	// findVariable makes this test binary print the path that Executable returns.
	findVariable = "KEYTURN_TEST_FIND_THE_CLI"
)

func TestOfficialCLIIsDownloadedOnce(t *testing.T) {
	d := newDistribution(t, officialScript)
	path, lines, err := d.executable(t)
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(os.Getenv("XDG_CACHE_HOME"), "keyturn", "temporal-9.8.7"), path)
	assert.Contains(t, lines, "Temporal CLI 9.8.7: downloading")
	printed, err := exec.Command(path).Output()
	require.NoError(t, err)
	assert.Contains(t, string(printed), "9.8.7")
	assert.Equal(t, int64(1), d.requests.Load())

	again, lines, err := d.executable(t)
	require.NoError(t, err)
	assert.Equal(t, path, again)
	assert.Contains(t, lines, "downloaded earlier")
	assert.Equal(t, int64(1), d.requests.Load())
	assert.Equal(t, []string{"temporal-9.8.7", "temporal.lock"}, namesIn(t, filepath.Dir(path)), "nothing else is left")
}

// Whatever comes instead of the release: it is not kept, not run, and the pinned
// tool is built.
func TestBuiltIfDistributionServesNoRelease(t *testing.T) {
	for name, c := range map[string]struct {
		serve  func(d *distributionServer) http.HandlerFunc
		reason string
	}{
		"not found": {func(*distributionServer) http.HandlerFunc { return http.NotFound }, "answered 404"},
		"page of a proxy": {func(*distributionServer) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>Please log in</html>") }
		}, "something else than temporal_cli_9.8.7_"},
		"another archive": {func(*distributionServer) http.HandlerFunc {
			return serveBytes(archiveOf("temporal", "#!/bin/sh\ntouch ran\n"))
		}, "something else than"},
		"truncated, with its length": {func(d *distributionServer) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", strconv.Itoa(len(d.archive)))
				_, _ = w.Write(d.archive[:len(d.archive)/2])
			}
		}, "unexpected EOF"},
		"truncated, without its length": {func(d *distributionServer) http.HandlerFunc {
			return serveBytes(d.archive[:len(d.archive)/2])
		}, "something else than"},
		"closed connection": {func(*distributionServer) http.HandlerFunc {
			return func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
		}, "cannot be reached: EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDistribution(t, officialScript)
			d.handler = c.serve(d)
			requireBuiltBecause(t, d, c.reason)
		})
	}
}

func TestBuiltIfDistributionIsNotThere(t *testing.T) {
	d := newDistribution(t, officialScript)
	d.server.Close()
	requireBuiltBecause(t, d, "cannot be reached")
}

// The checksum says that it is the release, but it is not for this machine.
func TestBuiltIfReleaseDoesNotRun(t *testing.T) {
	for name, script := range map[string]string{
		"fails":           "#!/bin/sh\nexit 1\n",
		"is no program":   "nothing that runs",
		"another version": "#!/bin/sh\necho temporal version 9.8.70 '(Server 1.2.3)'\n",
	} {
		t.Run(name, func(t *testing.T) {
			requireBuiltBecause(t, newDistribution(t, script), "--version")
		})
	}
}

func TestBuiltIfNoChecksumIsPinned(t *testing.T) {
	d := newDistribution(t, officialScript)
	require.NoError(t, os.WriteFile(filepath.Join(toolDirectory, checksumFile), nil, 0o600))
	requireBuiltBecause(t, d, "no checksum")
	assert.Zero(t, d.requests.Load())
}

func TestNoDownloadIfTurnedOff(t *testing.T) {
	d := newDistribution(t, officialScript)
	t.Setenv(DownloadVariable, "off")
	requireBuiltBecause(t, d, DownloadVariable+"=off")
	assert.Zero(t, d.requests.Load())
}

func TestNoDownloadOfWhatIsBuilt(t *testing.T) {
	d := newDistribution(t, officialScript)
	t.Setenv(DownloadVariable, "off")
	built, _, err := d.executable(t)
	require.NoError(t, err)
	t.Setenv(DownloadVariable, d.server.URL)
	again, lines, err := d.executable(t)
	require.NoError(t, err)
	assert.Equal(t, built, again)
	assert.Contains(t, lines, "build cache has it")
	assert.Zero(t, d.requests.Load())
}

func TestMirrorMustBeURL(t *testing.T) {
	newDistribution(t, officialScript)
	for _, wrong := range []string{"no", "mirror.example.net", "ftp://mirror.example.net", "https://"} {
		t.Setenv(DownloadVariable, wrong)
		_, err := Executable(t.Context(), nil)
		assert.ErrorContains(t, err, DownloadVariable+": must be", wrong)
	}
}

func TestDamagedCacheIsDownloadedAgain(t *testing.T) {
	d := newDistribution(t, officialScript)
	path, _, err := d.executable(t)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, 0))
	again, _, err := d.executable(t)
	require.NoError(t, err)
	assert.Equal(t, path, again)
	assert.Equal(t, int64(2), d.requests.Load())
}

func TestUnusableCacheIsReplaced(t *testing.T) {
	d := newDistribution(t, officialScript)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	t.Setenv("XDG_CACHE_HOME", file)
	path, _, err := d.executable(t)
	require.NoError(t, err)
	assert.Equal(t, os.TempDir(), filepath.Dir(filepath.Dir(path)))
}

// An image has the CLI in a cache that nobody can write.
func TestFilledCacheCanBeReadOnly(t *testing.T) {
	d := newDistribution(t, officialScript)
	path, _, err := d.executable(t)
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(filepath.Dir(path), "temporal.lock")))
	require.NoError(t, os.Chmod(filepath.Dir(path), 0o500))
	t.Cleanup(func() { require.NoError(t, os.Chmod(filepath.Dir(path), 0o700)) })
	again, _, err := d.executable(t)
	require.NoError(t, err)
	assert.Equal(t, path, again)
	assert.Equal(t, []string{"temporal-9.8.7"}, namesIn(t, filepath.Dir(path)))
}

// Another user can make a directory in the temporary directory, with a program.
func TestCacheOfOthersIsNotUsed(t *testing.T) {
	directory := t.TempDir()
	require.NoError(t, os.Chmod(directory, 0o777))
	assert.ErrorContains(t, cache{directory}.prepare(), "belongs to another user")
}

func TestOneOfManyProgramsDownloads(t *testing.T) {
	d := newDistribution(t, officialScript)
	const programs = 8
	paths := make([]string, programs)
	var all sync.WaitGroup
	for i := range programs {
		all.Go(func() {
			program := exec.Command(os.Args[0])
			program.Env = append(os.Environ(), findVariable+"=true")
			program.Stderr = os.Stderr
			printed, err := program.Output()
			assert.NoError(t, err)
			paths[i] = string(printed)
		})
	}
	all.Wait()
	assert.Equal(t, int64(1), d.requests.Load())
	for _, path := range paths {
		assert.Equal(t, filepath.Join(os.Getenv("XDG_CACHE_HOME"), "keyturn", "temporal-9.8.7"), path)
	}
}

// printExecutable is the program of TestOneOfManyProgramsDownloads.
func printExecutable() int {
	path, err := Executable(context.Background(), nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Print(path)
	return 0
}

func TestSilentDistributionIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		err := fetchFrom(t, roundTrip(func(request *http.Request) (*http.Response, error) {
			<-request.Context().Done()
			return nil, request.Context().Err()
		}))
		assert.ErrorContains(t, err, "sends nothing within 5s")
		assert.Equal(t, replyTime, time.Since(started))
	})
}

func TestPauseInArchiveIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for before := range 2 {
			started := time.Now()
			err := fetchFrom(t, pieces(append(slices.Repeat([]time.Duration{time.Second}, before), time.Hour)...))
			assert.ErrorContains(t, err, "pauses for more than 10s")
			assert.Equal(t, time.Duration(before)*time.Second+stallTime, time.Since(started), "after %d pieces", before)
		}
	})
}

// Slow, but faster than a build.
func TestSlowArchiveIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		err := fetchFrom(t, pieces(slices.Repeat([]time.Duration{stallTime / 2}, 30)...))
		assert.ErrorContains(t, err, "something else", "it was received, but is no release")
		assert.Equal(t, 30*stallTime/2, time.Since(started))
	})
}

func TestEndlessArchiveIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		err := fetchFrom(t, pieces(slices.Repeat([]time.Duration{stallTime / 2}, 1000)...))
		assert.ErrorContains(t, err, "not complete after 5m0s")
		assert.Equal(t, downloadTime, time.Since(started))
	})
}

// The pinned version has checksums: an update of one needs those of the other.
func TestPinnedVersionHasChecksums(t *testing.T) {
	pinned, err := findTool()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(pinned.directory, checksumFile))
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		assert.Len(t, sum, hex.EncodedLen(sha256.Size))
		assert.Contains(t, name, "temporal_cli_"+pinned.version+"_")
	}
	_, err = pinned.checksum()
	assert.NoError(t, err)
}

// distributionServer plays the part of Temporal's distribution. A module pins
// its release, and a fake go builds the tool, in the working directory.
type distributionServer struct {
	server   *httptest.Server
	archive  []byte
	handler  http.HandlerFunc
	built    string
	requests atomic.Int64
}

func newDistribution(t *testing.T, script string) *distributionServer {
	t.Helper()
	d := &distributionServer{built: writeScript(t, "#!/bin/sh\n"), archive: archiveOf("temporal", script)}
	d.handler = serveBytes(d.archive)
	fakeGo(t, "echo "+d.built)
	t.Chdir(fakeModule(t))
	sum := sha256.Sum256(d.archive)
	name := tool{version: "9.8.7"}.archive()
	require.NoError(t, os.WriteFile(filepath.Join(toolDirectory, checksumFile), []byte(hex.EncodeToString(sum[:])+"  "+name+"\n"), 0o600))
	d.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cli/archive/v9.8.7" {
			http.Redirect(w, r, "/assets/"+name, http.StatusFound)
			return
		}
		d.requests.Add(1)
		d.handler(w, r)
	}))
	t.Cleanup(d.server.Close)
	t.Setenv(DownloadVariable, d.server.URL)
	return d
}

func (d *distributionServer) executable(t *testing.T) (path, lines string, err error) {
	t.Helper()
	var reported []string
	path, err = Executable(t.Context(), func(line string) { reported = append(reported, line) })
	return path, strings.Join(reported, "\n"), err
}

func requireBuiltBecause(t *testing.T, d *distributionServer, reason string) {
	t.Helper()
	path, lines, err := d.executable(t)
	require.NoError(t, err)
	require.Equal(t, d.built, path)
	assert.Contains(t, lines, reason)
	for _, name := range namesIn(t, filepath.Join(os.Getenv("XDG_CACHE_HOME"), "keyturn")) {
		assert.NotContains(t, name, ".part")
		assert.NotEqual(t, "temporal-9.8.7", name)
	}
	assert.NoFileExists(t, "ran")
}

func namesIn(t *testing.T, directory string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(directory)
	require.NoError(t, err)
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func serveBytes(content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }
}

func archiveOf(name, content string) []byte {
	var archive bytes.Buffer
	zipped := gzip.NewWriter(&archive)
	entries := tar.NewWriter(zipped)
	for _, file := range [][2]string{{"LICENSE", "license"}, {name, content}} {
		_ = entries.WriteHeader(&tar.Header{Name: file[0], Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(file[1]))})
		_, _ = io.WriteString(entries, file[1])
	}
	_ = entries.Close()
	_ = zipped.Close()
	return archive.Bytes()
}

type roundTrip func(*http.Request) (*http.Response, error)

func (r roundTrip) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

// pieces is a distribution that sends pieces of an archive, each after a pause.
func pieces(pauses ...time.Duration) roundTrip {
	return func(request *http.Request) (*http.Response, error) {
		body := &slowBody{ended: request.Context().Done(), pauses: pauses}
		return &http.Response{StatusCode: http.StatusOK, Body: body, ContentLength: -1, Header: http.Header{}, Request: request}, nil
	}
}

type slowBody struct {
	ended  <-chan struct{}
	pauses []time.Duration
}

func (b *slowBody) Read(into []byte) (int, error) {
	if len(b.pauses) == 0 {
		return 0, io.EOF
	}
	pause := b.pauses[0]
	b.pauses = b.pauses[1:]
	select {
	case <-b.ended:
		return 0, context.Canceled
	case <-time.After(pause):
		return copy(into, "piece"), nil
	}
}

func (*slowBody) Close() error { return nil }

func fetchFrom(t *testing.T, distribution roundTrip) error {
	d := downloader{origin: "https://distribution.example.net", client: &http.Client{Transport: distribution}}
	return d.fetch(t.Context(), tool{version: "9.8.7"}, "no checksum", filepath.Join(t.TempDir(), "archive"), func(string) {})
}
