package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"

	"go.temporal.io/sdk/client"
	sdkworker "go.temporal.io/sdk/worker"

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
	// activitiesPerSecond is the queue's limit over all workers; 0 = none.
	activitiesPerSecond float64
	deployment          sdkworker.DeploymentOptions
	listen              string // empty = nowhere
	monitoring          monitorTimes
	log                 logSettings
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
	s := settings{monitoring: usualTimes}
	err := cmp.Or(
		read(env, readLogSettings, &s.log),
		read(env, readListen, &s.listen),
		read(env, readTaskQueue, &s.taskQueue),
		read(env, readQueueLimit, &s.activitiesPerSecond),
		read(env, readConnections, &s.connections),
		read(env, readTemporal, &s.temporal),
		read(env, readVersioning, &s.deployment),
	)
	if err != nil {
		return settings{}, err
	}
	return s, nil
}

func read[T any](env environment, from func(environment) (T, error), into *T) (err error) {
	*into, err = from(env)
	return err
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
