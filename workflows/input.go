package workflows

import (
	"regexp"
	"strings"
	"time"
	"unicode"

	"go.temporal.io/sdk/converter"

	"keyturn/activities"
	"keyturn/opsmanager"
)

// Duration is a time.Duration that JSON shows as a string, such as "15m".
type Duration = activities.Duration

// What to do when a target has failed for good.
const (
	OnFailureHold     = "hold"     // start no new target, wait for an operator
	OnFailureContinue = "continue" // do the others, then fail
	OnFailureStop     = "stop"     // start no new target, then fail
)

// RotateClusterInput starts a rotation. Only ProjectID and ClusterID are
// required; a field left out (in Go: zero) has the default of
// [DefaultRotateClusterInput].
type RotateClusterInput struct {
	// Connection names an Ops Manager that the worker is configured with.
	Connection string `json:"connection,omitempty"`
	// ProjectID and ClusterID are Ops Manager's ids, 24 hex digits; the
	// cluster is a sharded cluster or a plain replica set.
	ProjectID string `json:"projectId"`
	ClusterID string `json:"clusterId"`
	// Concurrency is how many targets are in work at a time, 1 to 64.
	Concurrency int `json:"concurrency,omitempty"`
	// DryRun lists and reads, and changes nothing.
	DryRun bool `json:"dryRun,omitempty"`
	// RequireApproval waits, after listing and reading, for somebody else
	// than Change.RequestedBy to approve, up to ApprovalTimeout.
	RequireApproval bool     `json:"requireApproval,omitempty"`
	ApprovalTimeout Duration `json:"approvalTimeout,omitempty"`
	// ExpectedTargets is the number of targets that must be found, up to
	// 5,000; 0 = don't check.
	ExpectedTargets int `json:"expectedTargets,omitempty"`
	// OnFailure is OnFailureHold, OnFailureContinue or OnFailureStop.
	OnFailure string `json:"onFailure,omitempty"`
	// HoldTimeout is how long OnFailureHold waits.
	HoldTimeout Duration `json:"holdTimeout,omitempty"`
	// RetryTimeout is how long a target's transient errors are retried.
	RetryTimeout Duration `json:"retryTimeout,omitempty"`
	// SettleTime is how long the key must keep its old id, after a PUT of
	// unknown outcome, before another PUT.
	SettleTime Duration `json:"settleTime,omitempty"`
	// VerifyTimeout is how long the new id may take to show.
	VerifyTimeout Duration `json:"verifyTimeout,omitempty"`
	// Change is recorded as it is.
	Change Change `json:"change,omitzero"`
	// Completed has the records of an earlier run: targets that were verified
	// there, and still have that key, are not rotated again.
	Completed []TargetRecord `json:"completed,omitempty"`
}

// Limits of an input.
const (
	MaxConcurrency   = 64
	maxTargets       = 5_000 // their records just fit into what Temporal takes as a result
	maxText          = 2_000 // characters of a reason or a comment
	maxName          = 256   // characters of a ticket, a person or a target
	longestWait      = 366 * 24 * time.Hour
	longestPatience  = 24 * time.Hour
	maxReportedNames = 10
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
func parseRotateClusterInput(raw converter.RawValue) (RotateClusterInput, error) {
	input := DefaultRotateClusterInput()
	var f faults
	decodeStrictly(raw, &input, &f)
	input.validate(&f)
	input.ProjectID, input.ClusterID = lower(input.ProjectID), lower(input.ClusterID)
	return input, f.err()
}

// ValidConnection tells whether a name can be a connection's: it becomes a part
// of a workflow's id.
func ValidConnection(name string) bool { return connectionName.MatchString(name) }

// ConnectionRule says in words what ValidConnection asks for.
const ConnectionRule = "must be 1 to 64 letters, digits, - or _"

var connectionName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (in RotateClusterInput) validate(f *faults) {
	if !ValidConnection(in.Connection) {
		f.add("connection", ConnectionRule)
	}
	f.checkID("projectId", in.ProjectID)
	f.checkID("clusterId", in.ClusterID)
	f.checkRange("expectedTargets", in.ExpectedTargets, 0, maxTargets)
	in.validateSettings(f, "")
	in.Change.validate(f)
	in.validateCompleted(f)
}

// validateSettings checks what a fleet has in common with a cluster; path
// stands before the fields' names.
func (in RotateClusterInput) validateSettings(f *faults, path string) {
	f.checkRange(path+"concurrency", in.Concurrency, 1, MaxConcurrency)
	switch in.OnFailure {
	case OnFailureHold, OnFailureContinue, OnFailureStop:
	default:
		f.add(path+"onFailure", "must be %s, %s or %s", OnFailureHold, OnFailureContinue, OnFailureStop)
	}
	f.checkDuration(path+"approvalTimeout", in.ApprovalTimeout, time.Millisecond, longestWait)
	f.checkDuration(path+"holdTimeout", in.HoldTimeout, time.Millisecond, longestWait)
	f.checkDuration(path+"retryTimeout", in.RetryTimeout, 0, longestPatience)
	f.checkDuration(path+"settleTime", in.SettleTime, 0, longestPatience)
	f.checkDuration(path+"verifyTimeout", in.VerifyTimeout, time.Millisecond, longestPatience)
}

func (c Change) validate(f *faults) {
	f.checkText("change.ticket", c.Ticket, maxName)
	f.checkText("change.requestedBy", c.RequestedBy, maxName)
	f.checkText("change.reason", c.Reason, maxText)
}

func (in RotateClusterInput) validateCompleted(f *faults) {
	if len(in.Completed) > maxTargets {
		f.add("completed", "has more than %d records", maxTargets)
		return
	}
	for i, record := range in.Completed {
		field := func(name string) string { return indexed("completed", i, name) }
		f.checkID(field("clusterId"), record.ClusterID)
		f.checkText(field("name"), record.Name, maxName)
		f.checkText(field("previousKeyUUID"), record.PreviousKeyUUID, maxName)
		f.checkText(field("newKeyUUID"), record.NewKeyUUID, maxName)
		if record.Status == StatusVerified && record.NewKeyUUID == "" {
			f.add(field("newKeyUUID"), "is required of a verified target")
		}
	}
}

func (f *faults) checkID(field, id string) {
	switch {
	case f.has(field): // it is there, but no text
	case id == "":
		f.add(field, "is required")
	case !opsmanager.ValidID(id):
		f.add(field, "must be 24 hex digits")
	}
}

func (f *faults) checkRange(field string, value, lowest, highest int) {
	if value < lowest || value > highest {
		f.add(field, "must be %d to %d", lowest, highest)
	}
}

func (f *faults) checkDuration(field string, value Duration, shortest, longest time.Duration) {
	if value.Std() < shortest || value.Std() > longest {
		f.add(field, "must be %s to %s", shortest, longest)
	}
}

func (f *faults) checkText(field, text string, longest int) {
	if len([]rune(text)) > longest {
		f.add(field, "must have %d characters at the most", longest)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
		f.add(field, "must not hold control characters")
	}
}

func lower(id string) string { return strings.ToLower(id) }
