package main

import (
	"context"
	"io"
	"log/slog"
	"regexp"
	"slices"

	"keyturn/internal/setting"
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

// logSettings are the format and the level of the log.
type logSettings struct {
	format string
	level  slog.Level
}

func readLogSettings(env setting.Environment) (logSettings, error) {
	read := logSettings{format: logFormatText, level: slog.LevelInfo}
	if format, set := env.LookupEnv(logFormatVariable); set {
		if format != logFormatText && format != logFormatJSON {
			return read, setting.Errorf(logFormatVariable, "must be text or json")
		}
		read.format = format
	}
	if name, set := env.LookupEnv(logLevelVariable); set {
		level, known := logLevels[name]
		if !known {
			return read, setting.Errorf(logLevelVariable, "must be debug, info, warn or error")
		}
		read.level = level
	}
	return read, nil
}

func (s logSettings) logger(out io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: s.level, ReplaceAttr: durationAsText}
	if s.format == logFormatJSON {
		return slog.New(rotationAttrs{slog.NewJSONHandler(out, options)})
	}
	return slog.New(rotationAttrs{slog.NewTextHandler(out, options)})
}

// durationAsText writes durations as in keyturn's JSON.
func durationAsText(_ []string, attribute slog.Attr) slog.Attr {
	if attribute.Value.Kind() == slog.KindDuration {
		attribute.Value = slog.StringValue(attribute.Value.Duration().String())
	}
	return attribute
}

// workflowIDKey is the SDK's key of a workflow's id, in its own lines and in those
// of workflows and activities.
const workflowIDKey = "WorkflowID"

// targetKey is the id of the target that a line is about.
const targetKey = "target"

// keyPath matches the path of a request about a target's key, in an error's text.
var keyPath = regexp.MustCompile(`/backupConfigs/([0-9A-Fa-f]{24})/encryptionKey\b`)

// rotationAttrs is a handler that adds connection, project and cluster to every
// line about a rotation, whoever writes it, from its workflow's id. A line that
// names no target, but a request about a target's key, gets the target.
type rotationAttrs struct{ slog.Handler }

func (h rotationAttrs) Handle(ctx context.Context, record slog.Record) error {
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

func (h rotationAttrs) WithAttrs(attributes []slog.Attr) slog.Handler {
	added := slices.Clone(attributes)
	for _, attribute := range attributes {
		added = append(added, namesIn(attribute)...)
	}
	return rotationAttrs{h.Handler.WithAttrs(added)}
}

func (h rotationAttrs) WithGroup(name string) slog.Handler {
	return rotationAttrs{h.Handler.WithGroup(name)}
}

func namesIn(attribute slog.Attr) []slog.Attr {
	if attribute.Key != workflowIDKey {
		return nil
	}
	id := attribute.Value.String()
	if connection, project, cluster, ok := workflows.ParseRotateClusterID(id); ok {
		return []slog.Attr{
			slog.String(workflows.ConnectionLabel, connection), slog.String(workflows.ProjectLabel, project), slog.String(workflows.ClusterLabel, cluster),
		}
	}
	if connection, project, ok := workflows.ParseRotateDeploymentID(id); ok {
		return []slog.Attr{slog.String(workflows.ConnectionLabel, connection), slog.String(workflows.ProjectLabel, project)}
	}
	return nil
}
