package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"

	"keyturn/activities"
)

const (
	// maxFailuresListed bounds the list of failed clusters in a result.
	maxFailuresListed = 100
	// maxFailureText bounds a failure's message in that list, in characters.
	maxFailureText = 500
)

// RotateFleetResult is the result of a fleet's rotation, and the details of the
// failure of one of which a cluster has failed. Its size does not grow with the
// fleet: each cluster's records are the result of its own rotation.
type RotateFleetResult struct {
	Connection string      `json:"connection"`
	Outcome    string      `json:"outcome"`
	StartedAt  time.Time   `json:"startedAt"`
	FinishedAt *time.Time  `json:"finishedAt"`
	Change     Change      `json:"change"`
	Counts     FleetCounts `json:"counts"`
	// TargetsVerified is how many keys were read back, over all clusters.
	TargetsVerified int              `json:"targetsVerified"`
	Failures        []ClusterFailure `json:"failures"`
	// FailuresNotListed is how many failures there was no room for.
	FailuresNotListed int `json:"failuresNotListed"`
	// WithSkips: an operator has skipped a target of a cluster.
	WithSkips bool `json:"withSkips,omitempty"`
}

// FleetCounts counts clusters. Those in work are the rest of Clusters.
type FleetCounts struct {
	Clusters int `json:"clusters"`
	Rotated  int `json:"rotated"`
	// Planned counts instead of Rotated in a dry run.
	Planned int `json:"planned,omitempty"`
	// Busy: a rotation of the cluster that somebody else had started was
	// running.
	Busy int `json:"busy"`
	// NotEncrypted: no part of the cluster has a key.
	NotEncrypted int `json:"notEncrypted"`
	Failed       int `json:"failed"`
	NotStarted   int `json:"notStarted"`
}

// Ended counts the clusters that need no more work.
func (c FleetCounts) Ended() int { return c.Rotated + c.Planned + c.Busy + c.NotEncrypted + c.Failed }

func (c FleetCounts) String() string {
	text := fmt.Sprintf("%d of %d clusters rotated", c.Rotated, c.Clusters)
	for _, part := range []struct {
		n    int
		what string
	}{{c.Planned, "planned"}, {c.Busy, "busy"}, {c.NotEncrypted, "not encrypted"}, {c.Failed, "failed"}, {c.NotStarted, "not started"}} {
		if part.n > 0 {
			text += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	return text
}

// ClusterFailure says where the records of a failed cluster are, and why it
// failed.
type ClusterFailure struct {
	activities.ClusterRef
	WorkflowID string       `json:"workflowId"`
	RunID      string       `json:"runId"`
	Error      *TargetError `json:"error"`
}

// FleetProgress answers the progress query and every update of a fleet.
type FleetProgress struct {
	RotateFleetResult
	Phase      string `json:"phase"`
	WaitingFor string `json:"waitingFor"`
	// InWork are the clusters that are being rotated.
	InWork []FleetCluster `json:"inWork"`
	// ClustersPerHour is the rate since the start, and SecondsLeft what it
	// makes of the rest; 0 = not known yet.
	ClustersPerHour float64 `json:"clustersPerHour"`
	SecondsLeft     int     `json:"secondsLeft"`
}

// FleetCluster is a cluster that is being rotated.
type FleetCluster struct {
	activities.ClusterRef
	WorkflowID string    `json:"workflowId"`
	StartedAt  time.Time `json:"startedAt"`
}

// FleetResultOf finds the records in the failure of a fleet's rotation; false
// where it has none.
func FleetResultOf(err error) (*RotateFleetResult, bool) {
	var appErr *temporal.ApplicationError
	if !errors.As(err, &appErr) || !appErr.HasDetails() {
		return nil, false
	}
	var result RotateFleetResult
	if appErr.Details(&result) != nil || result.Connection == "" || result.Failures == nil {
		return nil, false
	}
	return &result, true
}

func (e *TargetError) shortened() *TargetError {
	message := e.Message
	if runes := []rune(message); len(runes) > maxFailureText {
		message = string(runes[:maxFailureText-1]) + "…"
	}
	return &TargetError{Type: e.Type, Message: message}
}
