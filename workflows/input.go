package workflows

import (
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"go.temporal.io/sdk/converter"

	"keyturn/activities"
	"keyturn/opsmanager"
)

// Duration is a time.Duration that JSON has as a string, such as "15m", "7d" or
// "1d12h".
type Duration = activities.Duration

// ParseDuration reads a duration as an input and the command line have it: in
// Go's syntax, optionally starting with days of 24 hours ("90d", "1d12h",
// "1.5d").
func ParseDuration(text string) (Duration, error) { return activities.ParseDuration(text) }

// OnFailure is what a rotation does when a target has failed for good.
type OnFailure string

// Values of OnFailure.
const (
	OnFailureHold     OnFailure = "hold"     // start no new target, wait for an operator up to HoldTimeout
	OnFailureContinue OnFailure = "continue" // rotate the other targets, then fail
	OnFailureStop     OnFailure = "stop"     // start no new target, then fail
)

// RotateClusterInput is the input of a rotation. Only ProjectID and ClusterID are
// required; a field that is left out (in Go: zero) has the default of
// [DefaultRotateClusterInput].
type RotateClusterInput struct {
	// Connection names an Ops Manager connection that is configured in the
	// worker: 1 to 64 letters, digits, - or _. Default "default".
	Connection string `json:"connection,omitempty"`
	// ProjectID is Ops Manager's ID of the project, 24 hexadecimal digits.
	ProjectID string `json:"projectId"`
	// ClusterID is Ops Manager's ID of a sharded cluster or of a plain replica
	// set, 24 hexadecimal digits.
	ClusterID string `json:"clusterId"`
	// Concurrency is the number of targets in progress at a time, 1 to 64.
	// Default 4. The first target always runs alone; the others start when it is
	// verified.
	Concurrency int `json:"concurrency,omitempty"`
	// DryRun lists the targets and reads their keys, and changes nothing.
	DryRun bool `json:"dryRun,omitempty"`
	// RequireApproval waits for the approve update after the keys were read.
	// Change.RequestedBy cannot approve.
	RequireApproval bool `json:"requireApproval,omitempty"`
	// ApprovalTimeout is how long RequireApproval waits, up to 366 days. Default
	// 3 days.
	ApprovalTimeout Duration `json:"approvalTimeout,omitempty"`
	// ExpectedTargets is the number of targets that must be found, up to 5,000;
	// another number fails the rotation before anything is rotated. Default 0:
	// no check.
	ExpectedTargets int `json:"expectedTargets,omitempty"`
	// AllowUnserved rotates also where Ops Manager is 8.0 or later, which otherwise
	// fails the rotation with NotServed before anything is rotated.
	AllowUnserved bool `json:"allowUnserved,omitempty"`
	// OnFailure is what to do when a target has failed. Default OnFailureHold.
	OnFailure OnFailure `json:"onFailure,omitempty"`
	// HoldTimeout is how long OnFailureHold waits for an operator, up to 366
	// days. Default 7 days.
	HoldTimeout Duration `json:"holdTimeout,omitempty"`
	// RetryTimeout is how long the transient errors of a target are retried,
	// counted from the first one, up to 24 hours. Default 30 minutes.
	RetryTimeout Duration `json:"retryTimeout,omitempty"`
	// SettleTime is how long the key must keep its previous ID, after a PUT of
	// unknown outcome, before the PUT is repeated; up to 24 hours. Default 30
	// seconds.
	SettleTime Duration `json:"settleTime,omitempty"`
	// VerifyTimeout is how long the new key may take to appear after the PUT, up
	// to 24 hours. Default 15 minutes.
	VerifyTimeout Duration `json:"verifyTimeout,omitempty"`
	// Change is recorded in the result.
	Change Change `json:"change,omitzero"`
	// Completed are the records of an earlier run, up to 5,000. A target that was
	// verified there, and still has that key, is not rotated again.
	Completed []TargetRecord `json:"completed,omitempty"`
}

// Limits of an input.
const (
	MaxConcurrency     = 64    // the largest Concurrency
	maxTargets         = 5_000 // their records just fit into what Temporal takes as a result
	maxText            = 2_000 // characters of a reason or a comment
	maxName            = 256   // characters of a ticket, a person or a target
	maxOperatorTimeout = 366 * 24 * time.Hour
	maxTimeout         = 24 * time.Hour
	maxReportedNames   = 10
)

// DefaultRotateClusterInput has the values of the fields that an input leaves
// out.
func DefaultRotateClusterInput() RotateClusterInput {
	return RotateClusterInput{
		Connection:      DefaultConnection,
		Concurrency:     4,
		ApprovalTimeout: Duration(72 * time.Hour),
		OnFailure:       OnFailureHold,
		HoldTimeout:     Duration(168 * time.Hour),
		RetryTimeout:    Duration(30 * time.Minute),
		SettleTime:      Duration(30 * time.Second),
		VerifyTimeout:   Duration(15 * time.Minute),
	}
}

// parseRotateClusterInput gives a complete input, or InvalidInput with every
// fault.
func parseRotateClusterInput(raw converter.RawValue, now time.Time) (RotateClusterInput, error) {
	input := DefaultRotateClusterInput()
	var f fieldErrors
	if !decodeStrictly(raw, &input, &f) {
		return input, f.err()
	}
	input.validate(&f, now)
	input.ProjectID, input.ClusterID = lower(input.ProjectID), lower(input.ClusterID)
	return input, f.err()
}

func (in RotateClusterInput) settings() settings {
	return settings{
		Connection: in.Connection, ProjectID: in.ProjectID, Concurrency: in.Concurrency, DryRun: in.DryRun,
		RequireApproval: in.RequireApproval, ApprovalTimeout: in.ApprovalTimeout, ExpectedTargets: in.ExpectedTargets,
		OnFailure: in.OnFailure, HoldTimeout: in.HoldTimeout, RetryTimeout: in.RetryTimeout, SettleTime: in.SettleTime,
		Change: in.Change,
	}
}

// ValidConnection reports whether a name can be a connection's: it becomes a part
// of a workflow's id.
func ValidConnection(name string) bool { return connectionName.MatchString(name) }

// ConnectionRule says in words what ValidConnection asks for.
const ConnectionRule = "must be 1 to 64 letters, digits, - or _"

var connectionName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (in RotateClusterInput) validate(f *fieldErrors, now time.Time) {
	if !ValidConnection(in.Connection) {
		f.add("connection", ConnectionRule)
	}
	f.checkID("projectId", in.ProjectID)
	f.checkID("clusterId", in.ClusterID)
	f.checkRange("expectedTargets", in.ExpectedTargets, 0, maxTargets)
	in.validateSettings(f, "")
	in.Change.validate(f)
	in.validateCompleted(f, now)
}

// validateSettings checks what a fleet has in common with a cluster; path
// stands before the fields' names.
func (in RotateClusterInput) validateSettings(f *fieldErrors, path string) {
	in.settings().validate(f, path)
	f.checkDuration(path+"verifyTimeout", in.VerifyTimeout, time.Millisecond, maxTimeout)
}

// validate checks the fields that do not depend on what is rotated.
func (s settings) validate(f *fieldErrors, path string) {
	f.checkRange(path+"concurrency", s.Concurrency, 1, MaxConcurrency)
	switch s.OnFailure {
	case OnFailureHold, OnFailureContinue, OnFailureStop:
	default:
		f.add(path+"onFailure", "must be %s, %s or %s", OnFailureHold, OnFailureContinue, OnFailureStop)
	}
	f.checkDuration(path+"approvalTimeout", s.ApprovalTimeout, time.Millisecond, maxOperatorTimeout)
	f.checkDuration(path+"holdTimeout", s.HoldTimeout, time.Millisecond, maxOperatorTimeout)
	f.checkDuration(path+"retryTimeout", s.RetryTimeout, 0, maxTimeout)
	f.checkDuration(path+"settleTime", s.SettleTime, 0, maxTimeout)
}

func (c Change) validate(f *fieldErrors) {
	f.checkText("change.ticket", c.Ticket, maxName)
	f.checkText("change.requestedBy", c.RequestedBy, maxName)
	f.checkText("change.reason", c.Reason, maxText)
}

// maxRecordSkew is how far a record's times may be ahead: clocks differ.
const maxRecordSkew = 5 * time.Minute

// validateCompleted refuses records that no rotation can have written.
func (in RotateClusterInput) validateCompleted(f *fieldErrors, now time.Time) {
	if len(in.Completed) > maxTargets {
		f.add("completed", "must have at most %d records", maxTargets)
		return
	}
	indexOf := map[string]int{}
	for i, record := range in.Completed {
		field := func(name string) string { return indexed("completed", i, name) }
		if first, found := indexOf[lower(record.ClusterID)]; found {
			f.add(field("clusterId"), "is the target of completed[%d], too", first)
		}
		indexOf[lower(record.ClusterID)] = i
		if record.PreviousKeyUUID != "" && record.PreviousKeyUUID == record.NewKeyUUID {
			f.add(field("newKeyUUID"), "must differ from previousKeyUUID")
		}
		if record.Attempts < 0 {
			f.add(field("attempts"), "must not be negative")
		}
		f.checkPast(field("rotatedAt"), record.RotatedAt, now)
		f.checkPast(field("verifiedAt"), record.VerifiedAt, now)
		if record.Status != "" && !slices.Contains(statuses, record.Status) {
			f.add(field("status"), "must be one of %v", statuses)
		}
		f.checkID(field("clusterId"), record.ClusterID)
		f.checkText(field("name"), record.Name, maxName)
		f.checkText(field("previousKeyUUID"), record.PreviousKeyUUID, maxName)
		f.checkText(field("newKeyUUID"), record.NewKeyUUID, maxName)
		f.checkText(field("replacedOutside"), record.ReplacedOutside, maxName)
		if record.KMIP != nil {
			f.checkEvidence(field("kmip"), *record.KMIP, now)
		}
		if record.Status == StatusVerified && record.NewKeyUUID == "" {
			f.add(field("newKeyUUID"), "is required for a verified target")
		}
		if record.Status != StatusVerified && record.PreviousKeyUUID == "" && (record.RotatedAt != nil || record.Ambiguous || record.Status == StatusRotating) {
			f.add(field("previousKeyUUID"), "is required for a target to which a PUT may have been sent: only a changed key shows whether it took effect")
		}
	}
}

// maxEvidenceText is the most that keyturn takes over of a key's name.
const maxEvidenceText = 200

func (f *fieldErrors) checkEvidence(field string, e KeyEvidence, now time.Time) {
	if outcomes := []EvidenceOutcome{EvidenceWitnessed, EvidenceAbsent, EvidenceForbidden, EvidenceUnreachable}; !slices.Contains(outcomes, e.Outcome) {
		f.add(field+".outcome", "must be one of %v", outcomes)
	}
	f.checkText(field+".state", e.State, maxEvidenceText)
	f.checkText(field+".algorithm", e.Algorithm, maxEvidenceText)
	f.checkText(field+".name", e.Name, maxEvidenceText)
	f.checkPast(field+".askedAt", &e.AskedAt, now)
	if e.Length < 0 {
		f.add(field+".length", "must not be negative")
	}
}

func (f *fieldErrors) checkID(field, id string) {
	switch {
	case f.has(field): // it is there, but no text
	case id == "":
		f.add(field, "is required")
	case !opsmanager.ValidID(id):
		f.add(field, "must be 24 hex digits")
	}
}

func (f *fieldErrors) checkRange(field string, value, lowest, highest int) {
	if value < lowest || value > highest {
		f.add(field, "must be %d to %d", lowest, highest)
	}
}

func (f *fieldErrors) checkDuration(field string, value Duration, shortest, longest time.Duration) {
	if value.Std() < shortest || value.Std() > longest {
		f.add(field, "must be %s to %s", Duration(shortest), Duration(longest))
	}
}

func (f *fieldErrors) checkPast(field string, at *time.Time, now time.Time) {
	if at != nil && at.After(now.Add(maxRecordSkew)) {
		f.add(field, "must not be in the future")
	}
}

func (f *fieldErrors) checkText(field, text string, longest int) {
	if len([]rune(text)) > longest {
		f.add(field, "must have at most %d characters", longest)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
		f.add(field, "must not contain control characters")
	}
}
