package temporalserver

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

const (
	// quietTime is the time after which something that may take long is
	// reported: a cached tool is available within a second or two.
	quietTime = 3 * time.Second
	// progressInterval is the time between two reports.
	progressInterval = 30 * time.Second
)

// reporter reports about something that takes long.
type reporter struct {
	quit chan struct{}
	done chan struct{}
}

// newReporter reports for the first time after quietTime. line is called with
// how long it has been running.
func newReporter(progress func(string), line func(running time.Duration) string) *reporter {
	return reportAfter(quietTime, progress, line)
}

// startReporter reports a first line at once.
func startReporter(progress func(string), first string, line func(running time.Duration) string) *reporter {
	progress(first)
	return reportAfter(progressInterval, progress, line)
}

func reportAfter(first time.Duration, progress func(string), line func(time.Duration) string) *reporter {
	r := &reporter{quit: make(chan struct{}), done: make(chan struct{})}
	go r.run(first, progress, line)
	return r
}

func (r *reporter) run(wait time.Duration, progress func(string), line func(time.Duration) string) {
	defer close(r.done)
	started := time.Now()
	for {
		select {
		case <-r.quit:
			return
		case <-time.After(wait):
			progress(line(time.Since(started).Round(time.Second)))
		}
		wait = progressInterval
	}
}

// stop ends the reports.
func (r *reporter) stop() {
	close(r.quit)
	<-r.done
}

// transfer is a download in progress.
type transfer struct {
	io.Reader
	size     int64 // -1 = unknown
	received func()

	read atomic.Int64
}

// Read calls received for every piece.
func (t *transfer) Read(into []byte) (int, error) {
	n, err := t.Reader.Read(into)
	if n > 0 {
		t.read.Add(int64(n))
		t.received()
	}
	return n, err
}

// started says what is downloaded.
func (t *transfer) started(host string) string {
	size := ""
	if t.size > 0 {
		size = inMegabytes(t.size) + " "
	}
	return fmt.Sprintf("downloading %sfrom %s, which usually takes less than a minute", size, host)
}

// progress says how much is here.
func (t *transfer) progress() string {
	if t.size <= 0 {
		return "downloaded " + inMegabytes(t.read.Load())
	}
	return fmt.Sprintf("downloaded %s of %s", inMegabytes(t.read.Load()), inMegabytes(t.size))
}

func inMegabytes(bytes int64) string { return fmt.Sprintf("%d MB", (bytes+500_000)/1_000_000) }
