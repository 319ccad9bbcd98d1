package main

import (
	"math"
	"strconv"
)

const queueLimitVariable = "KEYTURN_TASK_QUEUE_ACTIVITIES_PER_SECOND"

// readQueueLimit reads how many activities a second the server may hand out to
// all workers of the task queue together; 0 = no limit. It is the server that
// keeps to it, and to the last one that a worker has told it; with it, no
// activity is started eagerly, so that each takes some 50 ms longer.
func readQueueLimit(env environment) (float64, error) {
	text, set := env.LookupEnv(queueLimitVariable)
	if !set {
		return 0, nil
	}
	limit, err := strconv.ParseFloat(text, 64)
	if err != nil || limit < 0 || math.IsInf(limit, 0) || math.IsNaN(limit) {
		return 0, wrong(queueLimitVariable, "must be a number, 0 (no limit) or more")
	}
	return limit, nil
}
