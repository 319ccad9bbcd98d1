package workflows

import (
	"slices"
	"time"

	"go.temporal.io/sdk/converter"

	"keyturn/activities"
)

// Proof is what shows that the processes of a deployment have new master keys.
type Proof = activities.Proof

// Values of Proof.
const (
	// ProofAgent: nothing is shown. That the agents report the new configuration, and
	// that the processes have restarted, is enough for OutcomeRotated.
	ProofAgent = activities.ProofAgent
	// ProofSnapshot: for each replica set, a snapshot that was taken after the
	// rotation is encrypted with a new key.
	ProofSnapshot = activities.ProofSnapshot
	// ProofKMIP: as ProofSnapshot, and the KMIP server says that this key was made
	// after the rotation began.
	ProofKMIP = activities.ProofKMIP
)

// RotateDeploymentInput is the input of the rotation of a project's deployments.
// Only ProjectID is required; a field that is left out (in Go: zero) has the default
// of [DefaultRotateDeploymentInput].
type RotateDeploymentInput struct {
	// Connection names an Ops Manager connection that is configured in the
	// worker: 1 to 64 letters, digits, - or _. Default "default".
	Connection string `json:"connection,omitempty"`
	// ProjectID is Ops Manager's ID of the project, 24 hexadecimal digits.
	ProjectID string `json:"projectId"`
	// ClusterIDs are Ops Manager's IDs of sharded clusters and of plain replica sets,
	// up to 1,000; empty = every cluster of the project whose processes have KMIP
	// encryption at rest.
	ClusterIDs []string `json:"clusterIds,omitempty"`
	// Concurrency is the number of replica sets in progress at a time, 1 to 64.
	// Default 1. The first replica set always goes alone. Of a replica set, the agents
	// restart one member at a time.
	Concurrency int `json:"concurrency,omitempty"`
	// Proof is what makes a replica set proven. Default ProofSnapshot.
	Proof Proof `json:"proof,omitempty"`
	// DeployTimeout is the longest time without progress after a publication: no
	// process restarts or reaches the configuration; 1 second to 24 hours. Default 2
	// hours.
	DeployTimeout Duration `json:"deployTimeout,omitempty"`
	// ProofTimeout is how long a snapshot is waited for after the last member of a
	// replica set has restarted, 1 second to 31 days. Default 26 hours: Ops Manager
	// takes a snapshot at least once a day. The next replica set does not wait for it.
	ProofTimeout Duration `json:"proofTimeout,omitempty"`
	// DryRun finds and checks the processes, and changes nothing.
	DryRun bool `json:"dryRun,omitempty"`
	// RequireApproval waits for the approve update after the processes were found.
	// Change.RequestedBy cannot approve.
	RequireApproval bool `json:"requireApproval,omitempty"`
	// ApprovalTimeout is how long RequireApproval waits, up to 366 days. Default
	// 3 days.
	ApprovalTimeout Duration `json:"approvalTimeout,omitempty"`
	// ExpectedTargets is the number of processes that must be found, up to 3,000;
	// another number fails the rotation before anything is published. Default 0: no
	// check.
	ExpectedTargets int `json:"expectedTargets,omitempty"`
	// OnFailure is what to do when a process has failed. Default OnFailureHold. After
	// DeploymentFailed and OverwroteConcurrentChange, OnFailureContinue holds, too.
	OnFailure OnFailure `json:"onFailure,omitempty"`
	// HoldTimeout is how long a held rotation waits for an operator, up to 366 days.
	// Default 7 days.
	HoldTimeout Duration `json:"holdTimeout,omitempty"`
	// RetryTimeout is how long the transient errors of a step are retried, counted
	// from the first one, up to 24 hours. Default 30 minutes.
	RetryTimeout Duration `json:"retryTimeout,omitempty"`
	// SettleTime is how long the published time must be seen to be absent, after a PUT
	// of unknown outcome, before the same time is published again; up to 24 hours.
	// Default 30 seconds.
	SettleTime Duration `json:"settleTime,omitempty"`
	// Change is recorded in the result.
	Change Change `json:"change,omitzero"`
	// Completed are the records of an earlier run, up to 3,000. A process that has the
	// time of that run still, and that was verified or has restarted since, is not
	// rotated again; one that has not restarted yet is waited for with the same time.
	Completed []ProcessRecord `json:"completed,omitempty"`
}

// Limits of a deployment's input.
const (
	maxProcesses    = 3_000 // their records just fit into what Temporal takes as a result
	maxClusters     = 1_000
	maxProofTimeout = 31 * 24 * time.Hour
)

// DefaultRotateDeploymentInput has the values of the fields that an input leaves
// out.
func DefaultRotateDeploymentInput() RotateDeploymentInput {
	cluster := DefaultRotateClusterInput()
	return RotateDeploymentInput{
		Connection:      DefaultConnection,
		Concurrency:     1,
		Proof:           ProofSnapshot,
		DeployTimeout:   Duration(2 * time.Hour),
		ProofTimeout:    Duration(26 * time.Hour),
		ApprovalTimeout: cluster.ApprovalTimeout,
		OnFailure:       cluster.OnFailure,
		HoldTimeout:     cluster.HoldTimeout,
		RetryTimeout:    cluster.RetryTimeout,
		SettleTime:      cluster.SettleTime,
	}
}

// parseRotateDeploymentInput gives a complete input, or InvalidInput with every
// fault.
func parseRotateDeploymentInput(raw converter.RawValue, now time.Time) (RotateDeploymentInput, error) {
	input := DefaultRotateDeploymentInput()
	var f fieldErrors
	if !decodeStrictly(raw, &input, &f) {
		return input, f.err()
	}
	input.validate(&f, now)
	input.ProjectID = lower(input.ProjectID)
	lowerAll(input.ClusterIDs)
	return input, f.err()
}

func (in RotateDeploymentInput) settings() settings {
	return settings{
		Connection: in.Connection, ProjectID: in.ProjectID, Concurrency: in.Concurrency, DryRun: in.DryRun,
		RequireApproval: in.RequireApproval, ApprovalTimeout: in.ApprovalTimeout, ExpectedTargets: in.ExpectedTargets,
		OnFailure: in.OnFailure, HoldTimeout: in.HoldTimeout, RetryTimeout: in.RetryTimeout, SettleTime: in.SettleTime,
		Change: in.Change,
	}
}

func (in RotateDeploymentInput) validate(f *fieldErrors, now time.Time) {
	if !ValidConnection(in.Connection) {
		f.add("connection", ConnectionRule)
	}
	f.checkID("projectId", in.ProjectID)
	f.checkClusterIDs("clusterIds", in.ClusterIDs)
	f.checkRange("expectedTargets", in.ExpectedTargets, 0, maxProcesses)
	in.validateSettings(f, "")
	in.Change.validate(f)
	in.validateCompleted(f, now)
}

// validateSettings checks what a fleet has in common with a project's rotation; path
// stands before the fields' names.
func (in RotateDeploymentInput) validateSettings(f *fieldErrors, path string) {
	switch in.Proof {
	case ProofAgent, ProofSnapshot, ProofKMIP:
	default:
		f.add(path+"proof", "must be %s, %s or %s", ProofAgent, ProofSnapshot, ProofKMIP)
	}
	in.settings().validate(f, path)
	f.checkDuration(path+"deployTimeout", in.DeployTimeout, time.Second, maxTimeout)
	f.checkDuration(path+"proofTimeout", in.ProofTimeout, time.Second, maxProofTimeout)
}

func (f *fieldErrors) checkClusterIDs(field string, ids []string) {
	if len(ids) > maxClusters {
		f.add(field, "must have at most %d IDs", maxClusters)
		return
	}
	indexOf := map[string]int{}
	for i, id := range ids {
		path := element(field, i)
		if f.checkID(path, id); f.has(path) {
			continue
		}
		if first, found := indexOf[lower(id)]; found {
			f.add(path, "is %s[%d], too", field, first)
		}
		indexOf[lower(id)] = i
	}
}

// validateCompleted refuses records that no rotation can have written.
func (in RotateDeploymentInput) validateCompleted(f *fieldErrors, now time.Time) {
	if len(in.Completed) > maxProcesses {
		f.add("completed", "must have at most %d records", maxProcesses)
		return
	}
	indexOf := map[string]int{}
	for i, record := range in.Completed {
		field := func(name string) string { return indexed("completed", i, name) }
		if record.Process == "" && !f.has(field("process")) {
			f.add(field("process"), "is required")
		}
		if first, found := indexOf[record.Process]; found && record.Process != "" {
			f.add(field("process"), "is the target of completed[%d], too", first)
		}
		indexOf[record.Process] = i
		if record.PreviousKeyUUID != "" && record.PreviousKeyUUID == record.NewKeyUUID {
			f.add(field("newKeyUUID"), "must differ from previousKeyUUID")
		}
		if record.Status != "" && !slices.Contains(statuses, record.Status) {
			f.add(field("status"), "must be one of %v", statuses)
		}
		if record.RotateAt == nil && (record.Status == StatusVerified || record.Status == StatusRotated) {
			f.add(field("rotateAt"), "is required for a target that is %s", record.Status)
		}
		if record.RotateAt != nil && !record.RotateAt.Equal(record.RotateAt.Truncate(time.Second)) {
			f.add(field("rotateAt"), "must be in whole seconds")
		}
		if record.RotatedAt == nil && (record.Status == StatusVerified || record.Status == StatusRotated) {
			f.add(field("rotatedAt"), "is required for a target that is %s", record.Status)
		}
		if record.RotateAt != nil && record.RotatedAt != nil && record.RotatedAt.Before(*record.RotateAt) {
			f.add(field("rotatedAt"), "must not be before rotateAt")
		}
		f.checkPast(field("rotateAt"), record.RotateAt, now)
		f.checkPast(field("rotatedAt"), record.RotatedAt, now)
		f.checkPast(field("verifiedAt"), record.VerifiedAt, now)
		for _, text := range [][2]string{
			{"process", record.Process}, {"host", record.Host}, {"replicaSet", record.ReplicaSet}, {"clusterName", record.ClusterName},
			{"previousRotateAt", record.PreviousRotateAt}, {"previousKeyUUID", record.PreviousKeyUUID}, {"newKeyUUID", record.NewKeyUUID},
			{"snapshotId", record.SnapshotID}, {"provenBy", string(record.ProvenBy)},
		} {
			f.checkText(field(text[0]), text[1], maxName)
		}
		if record.KMIP != nil {
			f.checkEvidence(field("kmip"), *record.KMIP, now)
		}
		if record.Status == StatusVerified && record.NewKeyUUID == "" {
			f.add(field("newKeyUUID"), "is required for a verified target")
		}
	}
}
