package main

import (
	"context"
	"log/slog"
	"sync"
)

// reloadFiles reads the files of the settings of connections and events again until
// ctx ends, and applies what has changed.
func (s settings) reloadFiles(ctx context.Context, logger *slog.Logger) {
	var reloads sync.WaitGroup
	for _, c := range s.connections {
		reloads.Go(func() { c.reloadAgain(ctx, s.monitoring, logger) })
	}
	if s.events != nil {
		reloads.Go(func() { reloadSecrets(ctx, s.events, s.monitoring, logger) })
	}
	reloads.Wait()
}

func (c connection) reloadAgain(ctx context.Context, times monitorTimes, logger *slog.Logger) {
	logged := reloadLog{logger: logger.With("connection", c.name), of: "a connection", changes: c.files.Changes()}
	for {
		sleep(ctx, times.reload)
		if ctx.Err() != nil {
			return
		}
		problem := c.files.Refresh()
		logged.log(c.files.Changes(), problem)
	}
}

// reloadLog logs what comes of reading files again, once for each change.
type reloadLog struct {
	logger  *slog.Logger
	of      string // what the files belong to
	changes int
	problem string
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
