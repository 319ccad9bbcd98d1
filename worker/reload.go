package main

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// reloadFiles reads the files of the settings of connections and events again until
// ctx ends, and applies what has changed.
func (s settings) reloadFiles(ctx context.Context, logger *slog.Logger) {
	var reloads sync.WaitGroup
	for _, c := range s.connections {
		logged := reloadLog{logger: logger.With("connection", c.name), of: "a connection", changes: c.files.Changes()}
		reloads.Go(func() {
			logged.readAgain(ctx, s.monitoring.reload, func() (int, error) {
				problem := c.files.Refresh()
				return c.files.Changes(), problem
			})
		})
	}
	if s.events != nil {
		logged := reloadLog{logger: logger, of: "events"}
		reloads.Go(func() { logged.readAgain(ctx, s.monitoring.reload, s.events.Refresh) })
	}
	reloads.Wait()
}

// reloadLog logs what comes of reading files again, once for each change.
type reloadLog struct {
	logger  *slog.Logger
	of      string // what the files belong to
	changes int
	problem string
}

// readAgain reads the files at this interval until ctx ends.
func (l *reloadLog) readAgain(ctx context.Context, interval time.Duration, refresh func() (changes int, problem error)) {
	for {
		sleep(ctx, interval)
		if ctx.Err() != nil {
			return
		}
		l.log(refresh())
	}
}

// log takes how often what is in force has changed, and why the files' contents are
// not in force. It returns the problem's text.
func (l *reloadLog) log(changes int, problem error) (text string) {
	if problem != nil {
		text = problem.Error()
	}
	switch {
	case text != "" && text != l.problem:
		l.logger.Warn("cannot reload the files of "+l.of+"; the earlier contents stay in use", "error", text)
	case text == "" && l.problem != "" && changes == l.changes:
		l.logger.Info("the files of " + l.of + " can be used again")
	}
	if changes != l.changes {
		l.logger.Info("reloaded the files of " + l.of)
	}
	l.changes, l.problem = changes, text
	return text
}
