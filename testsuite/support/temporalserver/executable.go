package temporalserver

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// ErrNotReady is returned by [Executable] if its context ends first. A build
// that it has started continues in the background.
var ErrNotReady = errors.New("the Temporal CLI is not ready: another program still downloads or builds it, or its first build is running")

// Executable returns the path of Temporal's CLI, from the first of these that
// works:
//
//   - the `temporal` on the PATH
//   - the official one of the version that tools/temporal pins, downloaded
//     earlier
//   - the pinned version, built earlier
//   - the official one, downloaded now, unless [DownloadVariable] is "off"
//   - the pinned version, built now from the Go module around the working
//     directory, which takes minutes
//
// progress, which may be nil, is called with a line that says which of them it
// is and how long it takes, and then from time to time. Only one program of this
// user downloads or builds at a time, however many need the CLI. If ctx ends
// first, the error is [ErrNotReady] and a build continues.
func Executable(ctx context.Context, progress func(line string)) (path string, err error) {
	return find(ctx, progress, buildInBackground)
}

// ExecutableForProgram is [Executable] for a program that leaves nothing behind:
// if ctx ends first, it ends the build and returns the cause of ctx.
func ExecutableForProgram(ctx context.Context, progress func(line string)) (path string, err error) {
	path, err = find(ctx, progress, buildEndsWithContext)
	if errors.Is(err, ErrNotReady) {
		return "", context.Cause(ctx)
	}
	return path, err
}

func find(ctx context.Context, progress func(line string), policy buildPolicy) (string, error) {
	if progress == nil {
		progress = func(string) {}
	}
	if path, err := exec.LookPath("temporal"); err == nil {
		progress("Temporal CLI: the one on the PATH, " + path)
		return path, nil
	}
	origin, err := downloadOrigin()
	if err != nil {
		return "", err
	}
	tool, err := findTool()
	if err != nil {
		return "", err
	}
	f := finder{tool: tool, policy: policy, progress: func(text string) {
		progress(fmt.Sprintf("Temporal CLI %s: %s", tool.version, text))
	}}
	f.downloader = newDownloader(origin)
	return f.find(ctx)
}

// finder finds the pinned version of the CLI.
type finder struct {
	tool       tool
	downloader downloader
	policy     buildPolicy
	progress   func(text string)
}

// find looks for an earlier download first without the lock: a cache that is
// filled can be read-only.
func (f finder) find(ctx context.Context) (string, error) {
	for _, directory := range cacheDirectories() {
		if path := f.downloadedIn(ctx, directory); path != "" {
			return path, nil
		}
	}
	cache, err := openCache()
	if err != nil {
		return "", err
	}
	lock, err := f.lock(ctx, cache)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	// Another program may have downloaded it meanwhile.
	if path := f.downloadedIn(ctx, cache.directory); path != "" {
		return path, nil
	}
	if f.isBuilt(cache) {
		return f.build(ctx, cache, lock, "not downloaded, because Go's build cache has it")
	}
	path, err := f.download(ctx, cache)
	if err == nil {
		return path, nil
	}
	if ctx.Err() != nil {
		return "", ErrNotReady
	}
	return f.build(ctx, cache, lock, fmt.Sprintf("not downloaded, because %v", err))
}

// lock waits until no other program downloads or builds.
func (f finder) lock(ctx context.Context, cache cache) (lock *lockFile, err error) {
	reporter := newReporter(f.progress, func(waiting time.Duration) string {
		return fmt.Sprintf("another program downloads or builds it; waiting for %s", waiting)
	})
	defer reporter.stop()
	return acquireLock(ctx, cache.lock())
}

// downloadedIn returns the path of an earlier download that runs, or "".
func (f finder) downloadedIn(ctx context.Context, directory string) string {
	path := downloadedPath(directory, f.tool.version)
	if checkVersion(ctx, path, f.tool.version) != nil {
		return ""
	}
	f.progress("downloaded earlier, " + path)
	return path
}

// download returns the reason if there is no download.
func (f finder) download(ctx context.Context, cache cache) (string, error) {
	sum, err := f.tool.checksum()
	if err != nil {
		return "", err
	}
	started := time.Now()
	path := downloadedPath(cache.directory, f.tool.version)
	if err := f.downloader.download(ctx, f.tool, sum, path, f.progress); err != nil {
		return "", err
	}
	f.progress(fmt.Sprintf("downloaded in %s", time.Since(started).Round(time.Second)))
	return path, nil
}
