package workflows

import (
	"encoding/json"
	"fmt"
	"regexp"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
)

// RotateFleetInput starts the rotation of many clusters. No field is required;
// one left out (in Go: zero) has the default of [DefaultRotateFleetInput].
type RotateFleetInput struct {
	// Connection names an Ops Manager that the worker is configured with.
	Connection string `json:"connection,omitempty"`
	// ProjectIDs are the projects, up to 1,000; none = every one that the key
	// sees.
	ProjectIDs []string `json:"projectIds,omitempty"`
	// ClusterNames is a regular expression (RE2) on display names; empty =
	// every cluster.
	ClusterNames string `json:"clusterNames,omitempty"`
	// ClustersAtATime is how many clusters are in work at a time, 1 to 100.
	ClustersAtATime int `json:"clustersAtATime,omitempty"`
	// MaxFailedClusters is how many may fail before no new one is started.
	MaxFailedClusters int `json:"maxFailedClusters,omitempty"`
	// Rotation says how each cluster is rotated.
	Rotation FleetRotation `json:"rotation,omitzero"`
	// Change is recorded with each rotation as it is.
	Change Change `json:"change,omitzero"`
}

// FleetRotation has the fields of a [RotateClusterInput] that fit every cluster
// of a fleet; its OnFailure is OnFailureStop where it is left out.
type FleetRotation struct {
	Concurrency     int      `json:"concurrency,omitempty"`
	DryRun          bool     `json:"dryRun,omitempty"`
	RequireApproval bool     `json:"requireApproval,omitempty"`
	ApprovalTimeout Duration `json:"approvalTimeout,omitempty"`
	OnFailure       string   `json:"onFailure,omitempty"`
	HoldTimeout     Duration `json:"holdTimeout,omitempty"`
	RetryTimeout    Duration `json:"retryTimeout,omitempty"`
	SettleTime      Duration `json:"settleTime,omitempty"`
	VerifyTimeout   Duration `json:"verifyTimeout,omitempty"`
}

// Limits of a fleet's input.
const (
	MaxClustersAtATime = 100
	maxProjects        = 1_000
	maxPattern         = 1_000 // characters of clusterNames
)

// DefaultRotateFleetInput has the values of the fields that an input leaves out.
func DefaultRotateFleetInput() RotateFleetInput {
	cluster := DefaultRotateClusterInput()
	return RotateFleetInput{
		Connection:      DefaultConnection,
		ClustersAtATime: 4,
		Rotation: FleetRotation{
			Concurrency:     cluster.Concurrency,
			ApprovalTimeout: cluster.ApprovalTimeout,
			OnFailure:       OnFailureStop,
			HoldTimeout:     cluster.HoldTimeout,
			RetryTimeout:    cluster.RetryTimeout,
			SettleTime:      cluster.SettleTime,
			VerifyTimeout:   cluster.VerifyTimeout,
		},
	}
}

// parseRotateFleetInput gives a complete input, or InvalidInput with every
// fault.
func parseRotateFleetInput(raw converter.RawValue) (RotateFleetInput, error) {
	input := DefaultRotateFleetInput()
	var f faults
	decodeStrictly(raw, &input, &f)
	input.validate(&f)
	for i, id := range input.ProjectIDs {
		input.ProjectIDs[i] = lower(id)
	}
	return input, f.err()
}

func (in RotateFleetInput) validate(f *faults) {
	if !ValidConnection(in.Connection) {
		f.add("connection", ConnectionRule)
	}
	if len(in.ProjectIDs) > maxProjects {
		f.add("projectIds", "has more than %d ids", maxProjects)
	}
	for i, id := range in.ProjectIDs[:min(len(in.ProjectIDs), maxProjects)] {
		f.checkID(fmt.Sprintf("projectIds[%d]", i), id)
	}
	f.checkText("clusterNames", in.ClusterNames, maxPattern)
	if _, err := regexp.Compile(in.ClusterNames); err != nil {
		f.add("clusterNames", "must be a regular expression (RE2): %v", err)
	}
	f.checkRange("clustersAtATime", in.ClustersAtATime, 1, MaxClustersAtATime)
	f.checkRange("maxFailedClusters", in.MaxFailedClusters, 0, maxFleet)
	in.cluster().validateSettings(f, "rotation.")
	in.Change.validate(f)
}

// maxFleet is beyond any fleet: it only keeps nonsense out.
const maxFleet = 1_000_000

// cluster is the rotation of one of the fleet's clusters, but for its ids.
func (in RotateFleetInput) cluster() RotateClusterInput {
	r := in.Rotation
	return RotateClusterInput{
		Connection: in.Connection, Concurrency: r.Concurrency, DryRun: r.DryRun,
		RequireApproval: r.RequireApproval, ApprovalTimeout: r.ApprovalTimeout,
		OnFailure: r.OnFailure, HoldTimeout: r.HoldTimeout, RetryTimeout: r.RetryTimeout,
		SettleTime: r.SettleTime, VerifyTimeout: r.VerifyTimeout, Change: in.Change,
	}
}

// rotationFields are the fields of rotation as they were given. They are passed
// on as such, since a zero that was asked for must not become a default.
//
// What is decoded here is part of the history.
//
//workflowcheck:ignore
func rotationFields(raw converter.RawValue) map[string]json.RawMessage {
	var given struct {
		Rotation map[string]json.RawMessage `json:"rotation"`
	}
	if data, err := jsonOf(raw); err == nil {
		_ = json.Unmarshal(data, &given) // it was decoded before, strictly
	}
	return given.Rotation
}

// inputOf is the input of a cluster's rotation.
func (in RotateFleetInput) inputOf(ref activities.ClusterRef, given map[string]json.RawMessage) map[string]any {
	input := map[string]any{}
	for _, name := range workflow.DeterministicKeys(given) {
		input[name] = given[name]
	}
	input["connection"], input["projectId"], input["clusterId"] = in.Connection, ref.ProjectID, ref.ClusterID
	input["onFailure"], input["change"] = in.Rotation.OnFailure, in.Change
	return input
}
