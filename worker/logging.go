package main

import (
	"context"
	"io"
	"log/slog"
	"regexp"
	"slices"

	"keyturn/workflows"
)

const (
	logFormatVariable = "KEYTURN_LOG_FORMAT"
	logLevelVariable  = "KEYTURN_LOG_LEVEL"

	logFormatText = "text"
	logFormatJSON = "json"
)

var logLevels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

// logSettings say how the log is written.
type logSettings struct {
	format string
	level  slog.Level
}

func readLogSettings(env environment) (logSettings, error) {
	read := logSettings{format: logFormatText, level: slog.LevelInfo}
	if format, set := env.LookupEnv(logFormatVariable); set {
		if format != logFormatText && format != logFormatJSON {
			return read, wrong(logFormatVariable, "must be text or json")
		}
		read.format = format
	}
	if name, set := env.LookupEnv(logLevelVariable); set {
		level, known := logLevels[name]
		if !known {
			return read, wrong(logLevelVariable, "must be debug, info, warn or error")
		}
		read.level = level
	}
	return read, nil
}

func (s logSettings) logger(out io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: s.level, ReplaceAttr: durationAsText}
	if s.format == logFormatJSON {
		return slog.New(rotationNamer{slog.NewJSONHandler(out, options)})
	}
	return slog.New(rotationNamer{slog.NewTextHandler(out, options)})
}

// durationAsText writes a duration as keyturn's JSON does everywhere else.
func durationAsText(_ []string, attribute slog.Attr) slog.Attr {
	if attribute.Value.Kind() == slog.KindDuration {
		attribute.Value = slog.StringValue(attribute.Value.Duration().String())
	}
	return attribute
}

// workflowIDKey is what the SDK calls a workflow's id, in its own lines as in
// those of workflows and activities.
const workflowIDKey = "WorkflowID"

// targetKey is the id of the target that a line is about.
const targetKey = "target"

// keyPath is that of a request about a target's key, in an error's text.
var keyPath = regexp.MustCompile(`/backupConfigs/([0-9A-Fa-f]{24})/encryptionKey\b`)

// rotationNamer adds connection, project and cluster to every line about a
// rotation, whoever writes it: they stand in its workflow's id. A line that names
// no target, but a request about a target's key, gets the target.
type rotationNamer struct{ slog.Handler }

func (h rotationNamer) Handle(ctx context.Context, record slog.Record) error {
	var names []slog.Attr
	target, named := "", false
	record.Attrs(func(attribute slog.Attr) bool {
		names = append(names, namesIn(attribute)...)
		named = named || attribute.Key == targetKey
		if path := keyPath.FindStringSubmatch(attribute.Value.String()); path != nil {
			target = path[1]
		}
		return true
	})
	if target != "" && !named {
		names = append(names, slog.String(targetKey, target))
	}
	if len(names) > 0 {
		record = record.Clone()
		record.AddAttrs(names...)
	}
	return h.Handler.Handle(ctx, record)
}

func (h rotationNamer) WithAttrs(attributes []slog.Attr) slog.Handler {
	added := slices.Clone(attributes)
	for _, attribute := range attributes {
		added = append(added, namesIn(attribute)...)
	}
	return rotationNamer{h.Handler.WithAttrs(added)}
}

func (h rotationNamer) WithGroup(name string) slog.Handler {
	return rotationNamer{h.Handler.WithGroup(name)}
}

func namesIn(attribute slog.Attr) []slog.Attr {
	if attribute.Key != workflowIDKey {
		return nil
	}
	connection, project, cluster, ok := workflows.ParseRotateClusterID(attribute.Value.String())
	if !ok {
		return nil
	}
	return []slog.Attr{
		slog.String(workflows.ConnectionLabel, connection), slog.String(workflows.ProjectLabel, project), slog.String(workflows.ClusterLabel, cluster),
	}
}
