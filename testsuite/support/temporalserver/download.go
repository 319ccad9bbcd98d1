package temporalserver

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"runtime"
	"strings"
	"time"
)

// DownloadVariable is an environment variable: "off" never downloads Temporal's
// CLI, and a URL names a mirror of Temporal's distribution.
const DownloadVariable = "KEYTURN_TEMPORAL_DOWNLOAD"

const (
	// distribution serves Temporal's releases, as the SDK's tests load them.
	distribution = "https://temporal.download"
	// noDownload is the value of DownloadVariable for no download.
	noDownload = "off"
	// replyTime is the time after which a distribution that has not begun to
	// send the archive is one that cannot be reached.
	replyTime = 5 * time.Second
	// stallTime is the longest pause within the archive.
	stallTime = 10 * time.Second
	// downloadTime limits the whole download: a build takes no longer.
	downloadTime = 5 * time.Minute
	// maxArchive and maxExecutable limit the sizes, in bytes: the archive has
	// about 50 MB.
	maxArchive    = 500 << 20
	maxExecutable = 2 << 30
)

// downloadOrigin returns the base URL of the distribution, or "" for none.
func downloadOrigin() (string, error) {
	switch value := os.Getenv(DownloadVariable); value {
	case "":
		return distribution, nil
	case noDownload:
		return "", nil
	default:
		parsed, err := url.Parse(value)
		if err != nil || parsed.Host == "" || parsed.Scheme != "https" && parsed.Scheme != "http" {
			return "", fmt.Errorf("%s: must be %q or the URL of a mirror of %s", DownloadVariable, noDownload, distribution)
		}
		return strings.TrimSuffix(value, "/"), nil
	}
}

// downloader downloads official releases.
type downloader struct {
	origin string // "" = nothing is downloaded
	client *http.Client
}

// newDownloader uses the proxy of the environment.
func newDownloader(origin string) downloader {
	return downloader{origin: origin, client: &http.Client{}}
}

// download stores the executable of a release at a path, if the archive has
// this checksum and the executable runs. Only the holder of the cache's lock
// calls it.
func (d downloader) download(ctx context.Context, t tool, sum, into string, progress func(string)) error {
	if d.origin == "" {
		return fmt.Errorf("%s=%s", DownloadVariable, noDownload)
	}
	archive, executable := into+".tar.gz.part", into+".part"
	defer os.Remove(archive)
	defer os.Remove(executable)
	if err := d.fetch(ctx, t, sum, archive, progress); err != nil {
		return err
	}
	if err := extract(archive, executable); err != nil {
		return fmt.Errorf("unpacking %s: %w", t.archive(), err)
	}
	if err := checkVersion(ctx, executable, t.version); err != nil {
		return err
	}
	return os.Rename(executable, into)
}

// fetch stores the archive. The checksum was pinned with the version, so neither
// the distribution nor a proxy in between can send anything else.
func (d downloader) fetch(ctx context.Context, t tool, sum, into string, progress func(string)) error {
	ctx, end := context.WithTimeoutCause(ctx, downloadTime, fmt.Errorf("the download is not complete after %s", downloadTime))
	defer end()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(replyTime, func() { cancel(fmt.Errorf("%s sends nothing within %s", d.host(), replyTime)) })
	defer watchdog.Stop()
	response, err := d.request(ctx, t)
	if err != nil {
		return causeOf(ctx, err)
	}
	defer response.Body.Close()
	if !watchdog.Stop() {
		return context.Cause(ctx)
	}
	stalled := time.AfterFunc(stallTime, func() { cancel(fmt.Errorf("%s pauses for more than %s", d.host(), stallTime)) })
	defer stalled.Stop()
	body := &transfer{
		Reader: io.LimitReader(response.Body, maxArchive), size: response.ContentLength,
		received: func() { stalled.Reset(stallTime) },
	}
	reporter := startReporter(progress, body.started(d.host()), func(time.Duration) string { return body.progress() })
	defer reporter.stop()
	got, err := store(body, into)
	if err != nil {
		return causeOf(ctx, err)
	}
	if got != sum {
		return fmt.Errorf("%s sent something else than %s: %s with SHA-256 %s, not %s", d.host(), t.archive(), contentType(response), got, sum)
	}
	return nil
}

// request asks for the archive. The distribution redirects to it.
func (d downloader) request(ctx context.Context, t tool) (*http.Response, error) {
	address := fmt.Sprintf("%s/cli/archive/v%s?platform=%s&arch=%s", d.origin, url.PathEscape(t.version), runtime.GOOS, runtime.GOARCH)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := d.client.Do(request)
	var failed *url.Error
	if errors.As(err, &failed) {
		return nil, fmt.Errorf("%s cannot be reached: %w", d.host(), failed.Err)
	}
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, fmt.Errorf("%s answered %s", d.host(), response.Status)
	}
	return response, nil
}

func (d downloader) host() string {
	parsed, err := url.Parse(d.origin)
	if err != nil {
		return d.origin
	}
	return parsed.Host
}

func contentType(response *http.Response) string {
	if sent := response.Header.Get("Content-Type"); sent != "" {
		return sent
	}
	return "a file"
}

// causeOf is the cause of ctx if err is a consequence of its end.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// store writes an archive to a file and returns its SHA-256 checksum, in hex.
func store(archive io.Reader, into string) (sum string, err error) {
	file, err := os.OpenFile(into, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	digest := sha256.New()
	_, err = io.Copy(io.MultiWriter(file, digest), archive)
	return hex.EncodeToString(digest.Sum(nil)), errors.Join(err, file.Close())
}

// extract writes the executable of an archive to a file.
func extract(archive, into string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return err
	}
	for entries := tar.NewReader(unzipped); ; {
		entry, err := entries.Next()
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("it has no file temporal")
		case err != nil:
			return err
		case entry.Typeflag == tar.TypeReg && path.Base(entry.Name) == "temporal":
			return writeExecutable(entries, into)
		}
	}
}

func writeExecutable(from io.Reader, into string) error {
	file, err := os.OpenFile(into, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, io.LimitReader(from, maxExecutable))
	return errors.Join(err, file.Close())
}
