package main

import (
	"math"
	"strconv"

	"keyturn/internal/setting"
)

const queueLimitVariable = "KEYTURN_TASK_QUEUE_ACTIVITIES_PER_SECOND"

// readQueueLimit reads how many activities per second the server hands out to all
// workers of the task queue together; 0 = no limit. The server enforces it, with
// the value that a worker sent last. With a limit, no activity is started eagerly,
// so that each takes about 50 ms longer.
func readQueueLimit(env setting.Environment) (float64, error) {
	text, set := env.LookupEnv(queueLimitVariable)
	if !set {
		return 0, nil
	}
	limit, err := strconv.ParseFloat(text, 64)
	if err != nil || limit < 0 || math.IsInf(limit, 0) || math.IsNaN(limit) {
		return 0, setting.Errorf(queueLimitVariable, "must be a number, 0 (no limit) or more")
	}
	return limit, nil
}
