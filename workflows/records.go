package workflows

import (
	"errors"
	"time"

	"go.temporal.io/sdk/temporal"

	"keyturn/activities"
)

// Outcomes of a rotation.
const (
	OutcomeRotated          = "rotated"
	OutcomeRotatedWithSkips = "rotatedWithSkips"
	OutcomePlanned          = "planned"
	// OutcomePartial is found only in the details of a failure.
	OutcomePartial = "partial"
)

// Statuses of a target.
const (
	StatusPending  = "pending"
	StatusPlanned  = "planned"
	StatusRotating = "rotating" // a PUT may have been sent
	StatusRotated  = "rotated"  // a PUT was accepted, the new id is not read yet
	StatusVerified = "verified"
	StatusSkipped  = "skipped"
	StatusFailed   = "failed"
)

// statuses in the order of a target's way.
var statuses = []string{StatusPending, StatusPlanned, StatusRotating, StatusRotated, StatusVerified, StatusSkipped, StatusFailed}

// Phases of a rotation.
const (
	PhaseListing          = "listing"
	PhaseReading          = "reading"
	PhaseAwaitingApproval = "awaitingApproval"
	PhaseRotating         = "rotating"
	PhasePaused           = "paused"
	PhaseHeld             = "held"
	PhaseDone             = "done"
)

// RotateClusterResult is what an auditor gets: the result of a rotation, and
// the details of the failure of one that did not reach every target. Times are
// in UTC.
type RotateClusterResult struct {
	Connection  string         `json:"connection"`
	ProjectID   string         `json:"projectId"`
	ClusterID   string         `json:"clusterId"`
	ClusterName string         `json:"clusterName"`
	Outcome     string         `json:"outcome"`
	StartedAt   time.Time      `json:"startedAt"`
	FinishedAt  *time.Time     `json:"finishedAt"`
	Change      Change         `json:"change"`
	Approval    *Approval      `json:"approval"`
	Targets     []TargetRecord `json:"targets"`
}

// Change says who asked for the rotation, under which ticket, and why.
type Change struct {
	Ticket      string `json:"ticket,omitempty"`
	RequestedBy string `json:"requestedBy,omitempty"`
	Reason      string `json:"reason,omitempty"`
}

// Approval says who let the rotation go on.
type Approval struct {
	By      string    `json:"by"`
	At      time.Time `json:"at"`
	Comment string    `json:"comment"`
}

// TargetRecord is the proof of one target: which key before, which after, when.
type TargetRecord struct {
	activities.Target
	Status string `json:"status"`
	// PreviousKeyUUID was read before anything was changed.
	PreviousKeyUUID string `json:"previousKeyUUID"`
	// NewKeyUUID was read back after the PUT; empty until then.
	NewKeyUUID string `json:"newKeyUUID"`
	// RotatedAt is when the PUT was accepted, or its effect first read.
	RotatedAt  *time.Time `json:"rotatedAt"`
	VerifiedAt *time.Time `json:"verifiedAt"`
	// Attempts of RotateKey.
	Attempts int `json:"attempts"`
	// Ambiguous: a PUT's outcome was unknown at some point and settled by
	// reading.
	Ambiguous bool `json:"ambiguous"`
	// CarriedOver: verified by an earlier run, and read again by this one.
	CarriedOver bool         `json:"carriedOver"`
	Error       *TargetError `json:"error"`
}

// TargetError is why a target failed, or why it was skipped.
type TargetError struct {
	Type    string `json:"type"`
	Message string `json:"message"`
}

// Progress answers the progress query and every update: the result so far, and
// what is going on.
type Progress struct {
	RotateClusterResult
	Phase string `json:"phase"`
	// Counts of targets by status.
	Counts map[string]int `json:"counts"`
	// WaitingFor says in a person's words what the rotation waits for.
	WaitingFor string `json:"waitingFor"`
}

// ResultOf finds the records in the failure of a rotation, as a client, a
// parent workflow or a Nexus caller sees it; false where it has none.
func ResultOf(err error) (*RotateClusterResult, bool) {
	var appErr *temporal.ApplicationError
	if !errors.As(err, &appErr) || !appErr.HasDetails() {
		return nil, false
	}
	var result RotateClusterResult
	if appErr.Details(&result) != nil || result.ClusterID == "" {
		return nil, false
	}
	return &result, true
}
