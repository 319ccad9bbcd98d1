package workflows

import (
	"time"

	"keyturn/activities"
	"keyturn/internal/kmipevidence"
)

// Outcome is how a rotation ended.
type Outcome string

// Outcomes of a rotation.
const (
	OutcomeRotated          Outcome = "rotated"          // every target is verified
	OutcomeRotatedWithSkips Outcome = "rotatedWithSkips" // every target is verified or skipped
	OutcomePlanned          Outcome = "planned"          // a dry run: nothing was changed
	// OutcomePartial and OutcomeNothingRotated appear only in the details of a
	// failure: OutcomeNothingRotated if the rotation ended before any PUT was
	// sent, else OutcomePartial.
	OutcomePartial        Outcome = "partial"
	OutcomeNothingRotated Outcome = "nothingRotated" // no PUT was sent
)

// Status is the state of a target.
type Status string

// Statuses of a target.
const (
	StatusPending  Status = "pending"  // not started
	StatusPlanned  Status = "planned"  // a dry run would have rotated it
	StatusRotating Status = "rotating" // a PUT may have been sent
	StatusRotated  Status = "rotated"  // a PUT was accepted, the new key was not read yet
	StatusVerified Status = "verified" // the new key was read
	StatusSkipped  Status = "skipped"  // an operator skipped it
	StatusFailed   Status = "failed"   // see the record's Error
)

// statuses in the order in which a target passes through them.
var statuses = []Status{StatusPending, StatusPlanned, StatusRotating, StatusRotated, StatusVerified, StatusSkipped, StatusFailed}

// Phase is the step that a running rotation is at.
type Phase string

// Phases of a rotation. A fleet has no PhaseReading, PhaseAwaitingApproval or
// PhaseHeld.
const (
	PhaseListing          Phase = "listing"          // finding the targets, or the fleet's clusters
	PhaseReading          Phase = "reading"          // reading the current keys
	PhaseAwaitingApproval Phase = "awaitingApproval" // waiting for approve or reject
	PhaseRotating         Phase = "rotating"         // targets or clusters are in progress
	PhasePaused           Phase = "paused"           // waiting for resume
	PhaseHeld             Phase = "held"             // a target failed: waiting for retry, skip or abort
	PhaseRecording        Phase = "recording"        // the rotation has ended and waits for its ledger
	PhaseDone             Phase = "done"             // the rotation has ended
)

// RotateClusterResult is the record of a rotation: its result, or the details of
// its failure (see [RotateClusterResultOf]). Times are in UTC, to the
// millisecond.
type RotateClusterResult struct {
	// Connection, ProjectID and ClusterID are the input's.
	Connection string `json:"connection"`
	ProjectID  string `json:"projectId"`
	ClusterID  string `json:"clusterId"`
	// ClusterName is the display name; empty if the rotation failed before it
	// was read.
	ClusterName string `json:"clusterName"`
	// Outcome is empty while the rotation runs.
	Outcome Outcome `json:"outcome"`
	// StartedAt is when the rotation started.
	StartedAt time.Time `json:"startedAt"`
	// FinishedAt is nil while the rotation runs.
	FinishedAt *time.Time `json:"finishedAt"`
	// Change is the input's.
	Change Change `json:"change"`
	// Approval is nil if there was none.
	Approval *Approval `json:"approval"`
	// Actions are what operators did, in that order, at most the newest 200.
	Actions []Action `json:"actions"`
	// ActionsNotListed is the number of older actions.
	ActionsNotListed int `json:"actionsNotListed"`
	// Targets are the shards in natural order of their names, then the config
	// server; or the one replica set. At most 5,000.
	Targets []TargetRecord `json:"targets"`
}

// Change says who requested the rotation, and why. It is recorded unchanged; no
// field is required.
type Change struct {
	// Ticket is the change ticket, up to 256 characters.
	Ticket string `json:"ticket,omitempty"`
	// RequestedBy is the requester, up to 256 characters. Approvals by the same
	// name are refused; case and surrounding spaces do not matter.
	RequestedBy string `json:"requestedBy,omitempty"`
	// Reason is free text, up to 2,000 characters.
	Reason string `json:"reason,omitempty"`
}

// Approval is an operator's approval of the plan.
type Approval struct {
	By      string    `json:"by"`      // the operator, up to 256 characters
	At      time.Time `json:"at"`      // when, in UTC, to the millisecond
	Comment string    `json:"comment"` // free text, up to 2,000 characters; empty if none was given
}

// Role is the part that a target plays in its cluster.
type Role = activities.Role

// Roles of a target.
const (
	RoleShard        = activities.RoleShard        // one shard of a sharded cluster
	RoleConfigServer = activities.RoleConfigServer // the config server replica set of a sharded cluster
	RoleReplicaSet   = activities.RoleReplicaSet   // a replica set that is not part of a sharded cluster
)

// Target is a backup with a key of its own: a shard, a config server, or a
// replica set.
type Target = activities.Target

// ClusterRef identifies a sharded cluster or a plain replica set.
type ClusterRef = activities.ClusterRef

// TargetRecord is the record of one target: its key before and after, and when.
type TargetRecord struct {
	Target
	// Status is the state of the target.
	Status Status `json:"status"`
	// PreviousKeyUUID is the key's ID, as read before anything was changed.
	PreviousKeyUUID string `json:"previousKeyUUID"`
	// ReplacedOutside is the key's ID as read first, if someone else replaced
	// the key before the PUT: PreviousKeyUUID is then the newer ID. Empty otherwise.
	ReplacedOutside string `json:"replacedOutside,omitempty"`
	// NewKeyUUID is the key's ID, as read after the PUT; empty until then.
	NewKeyUUID string `json:"newKeyUUID"`
	// RotatedAt is when Ops Manager accepted the PUT or, if the response was
	// lost, when the new key was first read; nil until then.
	RotatedAt *time.Time `json:"rotatedAt"`
	// VerifiedAt is when NewKeyUUID was read; nil until then.
	VerifiedAt *time.Time `json:"verifiedAt"`
	// KMIP is what the KMIP server said about NewKeyUUID once it was verified; nil
	// if the worker's connection has no KMIP server, or the target is not verified.
	KMIP *KeyEvidence `json:"kmip,omitempty"`
	// Attempts is the number of attempts of the RotateKey activity.
	Attempts int `json:"attempts"`
	// Ambiguous reports that the outcome of a PUT was unknown at some point and
	// was resolved by reading the key.
	Ambiguous bool `json:"ambiguous"`
	// CarriedOver reports that the target was verified in an earlier run, and
	// that this one found the same key and did not rotate it again.
	CarriedOver bool `json:"carriedOver"`
	// Error is why the target failed or was skipped; else nil.
	Error *TargetError `json:"error"`
	// FirstError is the first failure of a target that was retried or skipped
	// after it; else nil.
	FirstError *TargetError `json:"firstError,omitempty"`

	// compact: the JSON leaves out empty fields; see fit.
	compact bool
}

// KeyEvidence is what a KMIP server says about one key, as an answer that is
// independent of Ops Manager's.
type KeyEvidence = kmipevidence.Evidence

// EvidenceOutcome says what asking a KMIP server about a key led to.
type EvidenceOutcome = kmipevidence.Outcome

// Outcomes of asking a KMIP server. Only EvidenceAbsent speaks against a key.
const (
	EvidenceWitnessed   = kmipevidence.OutcomeWitnessed   // the KMIP server has the key
	EvidenceAbsent      = kmipevidence.OutcomeAbsent      // it knows no such key, or has destroyed it
	EvidenceForbidden   = kmipevidence.OutcomeForbidden   // it does not show the key to this client
	EvidenceUnreachable = kmipevidence.OutcomeUnreachable // no usable answer
)

// TargetError is why a target failed, or why it was skipped.
type TargetError struct {
	// Type is one of ErrorTypes, or "Skipped"; for a fleet's cluster also
	// "Terminated", "Lost" (it ended without reporting) and "RecordsUnreadable"
	// (what an earlier rotation did cannot be read; nothing was started).
	Type ErrorType `json:"type"`
	// Message says what failed, and what to do. It may be shortened to keep within
	// Temporal's limits.
	Message string `json:"message"`
}

// Progress is the response to the progress query and to every update: the
// current records and what the rotation is doing.
type Progress struct {
	RotateClusterResult
	// Phase is what the rotation is doing.
	Phase Phase `json:"phase"`
	// Counts is the number of targets by status; a status without targets is
	// left out.
	Counts map[Status]int `json:"counts"`
	// TargetsNotListed is the number of targets that the response to an update
	// leaves out of Targets where it would be too long for Temporal, verified
	// ones first. The response to the query has all targets.
	TargetsNotListed int `json:"targetsNotListed,omitempty"`
	// WaitingFor describes what the rotation is waiting for; empty when it has
	// ended.
	WaitingFor string `json:"waitingFor"`
}

// RotateClusterResultOf returns the records in the error of a rotation, as a
// client, a parent workflow or a Nexus caller receives it; false if it has none,
// because the rotation failed before it read any key.
func RotateClusterResultOf(err error) (*RotateClusterResult, bool) {
	var result RotateClusterResult
	if !recordsIn(err, &result) || result.ClusterID == "" {
		return nil, false
	}
	return &result, true
}
