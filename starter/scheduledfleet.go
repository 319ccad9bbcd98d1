package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"keyturn/workflows"
)

// fleetWork is the rotation of a fleet.
type fleetWork struct {
	Connection   string
	ProjectIDs   []string
	ClusterNames string
	known        bool
}

// newFleetWork reads what the Web UI has written as well. Nothing is required of
// it, so that null and no input at all are inputs.
func newFleetWork(input json.RawMessage) scheduledWork {
	var w fleetWork
	w.known = len(input) == 0 || json.Unmarshal(input, &w) == nil
	w.Connection = cmp.Or(w.Connection, workflows.DefaultConnection)
	return w
}

func (w fleetWork) subject() string {
	if !w.known {
		return "an input that is no fleet's"
	}
	subject := "a fleet: every cluster"
	if w.ClusterNames != "" {
		subject = fmt.Sprintf("a fleet: the clusters with names like %q", w.ClusterNames)
	}
	if n := len(w.ProjectIDs); n > 0 {
		subject += " of " + manyOf(n, "project")
	}
	return subject + ", connection " + w.Connection
}

// obstacle: there is none. Clusters that are in work elsewhere are counted as
// busy.
func (w fleetWork) obstacle(context.Context, *app, *session) error { return nil }

// rotation is the run itself: a fleet hands over to no other id.
func (w fleetWork) rotation(workflowID string) (rotationName, bool) {
	return rotationName{connection: w.Connection, fleet: true, id: workflowID}, w.known
}

func (w fleetWork) outcome(raw json.RawMessage) (status, words string) {
	var result workflows.RotateFleetResult
	if json.Unmarshal(raw, &result) != nil || result.Outcome == "" {
		return statusUnknown, unreadableResult
	}
	counts := result.Counts
	words = "rotated " + manyOf(counts.Rotated, "cluster")
	if result.Outcome == workflows.OutcomePlanned {
		words = "planned " + manyOf(counts.Planned, "cluster") + ", changed nothing"
	}
	if counts.Busy > 0 {
		words += fmt.Sprintf(", %d busy", counts.Busy)
	}
	if counts.NotEncrypted > 0 {
		words += fmt.Sprintf(", %d not encrypted", counts.NotEncrypted)
	}
	return result.Outcome, words
}
