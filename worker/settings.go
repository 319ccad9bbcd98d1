package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"

	"go.temporal.io/sdk/client"

	"keyturn/workflows"
)

const (
	taskQueueVariable = "KEYTURN_TASK_QUEUE"
	listenVariable    = "KEYTURN_LISTEN"

	// maxTaskQueueLength is Temporal's own limit on names, in bytes.
	maxTaskQueueLength = 1000
)

// settings are all that the worker is told from outside, checked.
type settings struct {
	taskQueue   string
	temporal    client.Options // without logger and identity
	connections []connection   // by name
	listen      string         // empty = nowhere
	monitoring  monitorTimes
	log         logSettings
}

// settingError names the setting that is wrong: a variable, or a variable that
// names a file and the key in it. It never shows a value, which may be a secret
// that was put into the wrong place.
type settingError struct {
	setting string
	problem string
}

func (e *settingError) Error() string { return e.setting + ": " + e.problem }

func wrong(setting, format string, arguments ...any) error {
	return &settingError{setting: setting, problem: fmt.Sprintf(format, arguments...)}
}

// readSettings reads and checks everything that can be checked without a
// network. The error is a *settingError.
func readSettings(env environment) (settings, error) {
	log, err := readLogSettings(env)
	if err != nil {
		return settings{}, err
	}
	listen, err := readListen(env)
	if err != nil {
		return settings{}, err
	}
	taskQueue, err := readTaskQueue(env)
	if err != nil {
		return settings{}, err
	}
	connections, err := readConnections(env)
	if err != nil {
		return settings{}, err
	}
	temporal, err := readTemporal(env)
	if err != nil {
		return settings{}, err
	}
	return settings{
		taskQueue: taskQueue, temporal: temporal, connections: connections, listen: listen, monitoring: usualTimes, log: log,
	}, nil
}

func readTaskQueue(env environment) (string, error) {
	name, set := env.LookupEnv(taskQueueVariable)
	switch {
	case !set:
		return workflows.DefaultTaskQueue, nil
	case len(name) > maxTaskQueueLength:
		return "", wrong(taskQueueVariable, "is longer than %d bytes", maxTaskQueueLength)
	case name != strings.TrimSpace(name):
		return "", wrong(taskQueueVariable, "begins or ends with white space")
	case strings.ContainsFunc(name, unicode.IsControl):
		return "", wrong(taskQueueVariable, "holds a control character")
	case strings.HasPrefix(name, "/_sys/"):
		return "", wrong(taskQueueVariable, "begins with /_sys/, which Temporal keeps for itself")
	}
	return name, nil
}

// readFile returns a file's contents. Its error says what is wrong with the
// file, but not the path: people do put a secret itself where its file's name
// belongs.
func readFile(setting, path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, wrong(setting, "the file that it names can't be read: %v", withoutPath(err))
	}
	return data, nil
}

func withoutPath(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
