package temporalclient

import (
	"strings"

	"keyturn/internal/setting"
)

const (
	// TaskQueueVariable names the task queue of keyturn's workers.
	TaskQueueVariable = "KEYTURN_TASK_QUEUE"

	// maxTaskQueueLength is Temporal's own limit on names, in bytes.
	maxTaskQueueLength = 1000
)

// TaskQueue returns the name of the task queue, or the default if none is set. The
// error is a [*setting.Error].
func TaskQueue(env setting.Environment, defaultName string) (string, error) {
	name, set := env.LookupEnv(TaskQueueVariable)
	switch {
	case !set:
		return defaultName, nil
	case len(name) > maxTaskQueueLength:
		return "", setting.Errorf(TaskQueueVariable, "is longer than %d bytes", maxTaskQueueLength)
	case strings.HasPrefix(name, "/_sys/"):
		return "", setting.Errorf(TaskQueueVariable, "begins with /_sys/, which is reserved for Temporal")
	}
	return name, setting.CheckText(TaskQueueVariable, name)
}
