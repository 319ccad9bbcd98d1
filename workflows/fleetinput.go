package workflows

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"
)

// RotateFleetInput is the input of a fleet rotation. No field is required; a field
// that is left out (in Go: zero) has the default of [DefaultRotateFleetInput].
type RotateFleetInput struct {
	// Kind is what the fleet rotates. Default FleetOfClusters: clusters, whose backups
	// have keys. With FleetOfDeployments, each of the projects is rotated by a
	// RotateDeployment of its own.
	Kind FleetKind `json:"kind,omitempty"`
	// Connection names an Ops Manager connection that is configured in the
	// worker. Default "default".
	Connection string `json:"connection,omitempty"`
	// ProjectIDs are the projects, up to 1,000; empty = every project that the
	// worker's API key can read.
	ProjectIDs []string `json:"projectIds,omitempty"`
	// ExcludeProjectIDs are projects to leave out, up to 1,000; they take precedence
	// over ProjectIDs.
	ExcludeProjectIDs []string `json:"excludeProjectIds,omitempty"`
	// ClusterNames is a regular expression (RE2) that display names must match,
	// up to 1,000 characters; empty = every cluster. Refused with
	// FleetOfDeployments: a rotation of deployments is the whole project's. To rotate
	// some of its clusters, start a RotateDeployment with ClusterIDs.
	ClusterNames string `json:"clusterNames,omitempty"`
	// ClustersAtATime is the number of clusters in progress at a time, 1 to 100.
	// Default 4. With FleetOfDeployments, it is the number of projects. A project is in
	// progress until its keys are proven, which takes up to the rotation's
	// ProofTimeout.
	ClustersAtATime int `json:"clustersAtATime,omitempty"`
	// MaxFailedClusters is the number of clusters, or projects, that may fail before no
	// more are started, up to 1,000,000. Default 0: the first failure stops the fleet.
	MaxFailedClusters int `json:"maxFailedClusters,omitempty"`
	// Rotation has the settings of each cluster's or project's rotation.
	Rotation FleetRotation `json:"rotation,omitzero"`
	// Change is recorded in the result of the fleet and of each rotation.
	Change Change `json:"change,omitzero"`
}

// FleetRotation has the fields of [RotateClusterInput] that can apply to every
// cluster of a fleet, or those of [RotateDeploymentInput] that can apply to every
// project of one, with the same limits and defaults, except that the default of
// OnFailure is OnFailureStop. A field of the other kind is refused.
type FleetRotation struct {
	// Concurrency is the number of targets of one cluster in progress at a time, 1
	// to 64. Default 4. With FleetOfDeployments, it is the number of replica sets of
	// one project. Default 1.
	Concurrency int `json:"concurrency,omitempty"`
	// DryRun lists the targets of each cluster or project and reads their keys, and
	// changes nothing.
	DryRun bool `json:"dryRun,omitempty"`
	// RequireApproval makes each cluster or project wait for an approve update of its
	// own.
	RequireApproval bool `json:"requireApproval,omitempty"`
	// ApprovalTimeout is how long each cluster waits for approval, up to 366 days.
	// Default 3 days.
	ApprovalTimeout Duration `json:"approvalTimeout,omitempty"`
	// AllowUnserved rotates also where Ops Manager is 8.0 or later; see
	// [RotateClusterInput]. Refused with FleetOfDeployments.
	AllowUnserved bool `json:"allowUnserved,omitempty"`
	// OnFailure is what a cluster does when a target has failed. Default
	// OnFailureStop.
	OnFailure OnFailure `json:"onFailure,omitempty"`
	// HoldTimeout is how long OnFailureHold waits for an operator, up to 366 days.
	// Default 7 days.
	HoldTimeout Duration `json:"holdTimeout,omitempty"`
	// RetryTimeout is how long the transient errors of a target are retried, up to
	// 24 hours. Default 30 minutes.
	RetryTimeout Duration `json:"retryTimeout,omitempty"`
	// SettleTime is how long a key must keep its previous ID, after a PUT of unknown
	// outcome, before the PUT is repeated; up to 24 hours. Default 30 seconds. With
	// FleetOfDeployments, it is how long the published time must be absent.
	SettleTime Duration `json:"settleTime,omitempty"`
	// VerifyTimeout is how long a new key may take to appear after the PUT, up to 24
	// hours. Default 15 minutes. Refused with FleetOfDeployments.
	VerifyTimeout Duration `json:"verifyTimeout,omitempty"`
	// Proof is what makes a replica set proven. Default ProofSnapshot. Only with
	// FleetOfDeployments, as the next two.
	Proof Proof `json:"proof,omitempty"`
	// DeployTimeout is the longest time without progress after a publication, 1 second
	// to 24 hours. Default 2 hours.
	DeployTimeout Duration `json:"deployTimeout,omitempty"`
	// ProofTimeout is how long a snapshot is waited for after the last member of a
	// replica set has restarted, 1 second to 31 days. Default 26 hours.
	ProofTimeout Duration `json:"proofTimeout,omitempty"`
}

// fieldsOfKind are the fields of a FleetRotation that only one kind has.
var fieldsOfKind = map[FleetKind][]string{
	FleetOfClusters:    {"allowUnserved", "verifyTimeout"},
	FleetOfDeployments: {"proof", "deployTimeout", "proofTimeout"},
}

// Limits of a fleet's input.
const (
	// MaxClustersAtATime is the largest ClustersAtATime.
	MaxClustersAtATime = 100
	maxProjects        = 1_000
	maxPattern         = 1_000 // characters of clusterNames
)

// DefaultRotateFleetInput has the values of the fields that the input of a fleet of
// clusters leaves out.
func DefaultRotateFleetInput() RotateFleetInput {
	cluster := DefaultRotateClusterInput()
	return RotateFleetInput{
		Kind:            FleetOfClusters,
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

// DefaultDeploymentFleetInput is DefaultRotateFleetInput for a fleet of deployments.
func DefaultDeploymentFleetInput() RotateFleetInput {
	input, deployment := DefaultRotateFleetInput(), DefaultRotateDeploymentInput()
	input.Kind = FleetOfDeployments
	input.Rotation.VerifyTimeout = 0
	input.Rotation.Concurrency, input.Rotation.Proof = deployment.Concurrency, deployment.Proof
	input.Rotation.DeployTimeout, input.Rotation.ProofTimeout = deployment.DeployTimeout, deployment.ProofTimeout
	return input
}

// parseRotateFleetInput returns a complete input, or InvalidInput that names
// every wrong field.
func parseRotateFleetInput(raw converter.RawValue) (RotateFleetInput, error) {
	input := DefaultRotateFleetInput()
	if kindGiven(raw) == FleetOfDeployments {
		input = DefaultDeploymentFleetInput()
	}
	var f fieldErrors
	if !decodeStrictly(raw, &input, &f) {
		return input, f.err()
	}
	input.validate(&f, rotationFields(raw))
	lowerAll(input.ProjectIDs)
	lowerAll(input.ExcludeProjectIDs)
	return input, f.err()
}

// kindGiven is the kind of an input, on which its defaults depend. One that is not a
// kind is refused later.
//
// It decodes only what is part of the history.
//
//workflowcheck:ignore
func kindGiven(raw converter.RawValue) FleetKind {
	var given struct {
		Kind FleetKind `json:"kind"`
	}
	if data, err := jsonOf(raw); err == nil {
		_ = json.Unmarshal(data, &given) // parseRotateFleetInput decodes it strictly
	}
	return given.Kind
}

func (in RotateFleetInput) validate(f *fieldErrors, rotationGiven map[string]json.RawMessage) {
	if !ValidConnection(in.Connection) {
		f.add("connection", ConnectionRule)
	}
	f.checkProjects("projectIds", in.ProjectIDs)
	f.checkProjects("excludeProjectIds", in.ExcludeProjectIDs)
	f.checkText("clusterNames", in.ClusterNames, maxPattern)
	if _, err := regexp.Compile(in.ClusterNames); err != nil {
		f.add("clusterNames", "must be a regular expression (RE2): %v", err)
	}
	f.checkRange("clustersAtATime", in.ClustersAtATime, 1, MaxClustersAtATime)
	f.checkRange("maxFailedClusters", in.MaxFailedClusters, 0, maxFleet)
	switch in.Kind {
	case FleetOfClusters:
		in.cluster().validateSettings(f, "rotation.")
		f.refuseFields(FleetOfDeployments, rotationGiven)
	case FleetOfDeployments:
		in.deployment().validateSettings(f, "rotation.")
		f.refuseFields(FleetOfClusters, rotationGiven)
		if in.ClusterNames != "" {
			f.add("clusterNames", "does not apply to a fleet of kind %s, which rotates whole projects: use projectIds or excludeProjectIds, or start RotateDeployment with clusterIds", in.Kind)
		}
	default:
		f.add("kind", "must be %s or %s", FleetOfClusters, FleetOfDeployments)
	}
	in.Change.validate(f)
}

// refuseFields refuses the fields of another kind's rotation that were given.
func (f *fieldErrors) refuseFields(other FleetKind, given map[string]json.RawMessage) {
	for _, name := range fieldsOfKind[other] {
		if _, found := given[name]; found {
			f.add("rotation."+name, "applies to a fleet of kind %s only", other)
		}
	}
}

func (f *fieldErrors) checkProjects(field string, ids []string) {
	if len(ids) > maxProjects {
		f.add(field, "must have at most %d IDs", maxProjects)
	}
	for i, id := range ids[:min(len(ids), maxProjects)] {
		f.checkID(fmt.Sprintf("%s[%d]", field, i), id)
	}
}

func lowerAll(ids []string) {
	for i, id := range ids {
		ids[i] = lower(id)
	}
}

// maxFleet is larger than any fleet: the limit only catches mistakes.
const maxFleet = 1_000_000

// cluster returns the input of a cluster's rotation, without the cluster's IDs.
func (in RotateFleetInput) cluster() RotateClusterInput {
	r := in.Rotation
	return RotateClusterInput{
		Connection: in.Connection, Concurrency: r.Concurrency, DryRun: r.DryRun,
		RequireApproval: r.RequireApproval, ApprovalTimeout: r.ApprovalTimeout, AllowUnserved: r.AllowUnserved,
		OnFailure: r.OnFailure, HoldTimeout: r.HoldTimeout, RetryTimeout: r.RetryTimeout,
		SettleTime: r.SettleTime, VerifyTimeout: r.VerifyTimeout, Change: in.Change,
	}
}

// deployment returns the input of a project's rotation, without the project's ID.
func (in RotateFleetInput) deployment() RotateDeploymentInput {
	r := in.Rotation
	return RotateDeploymentInput{
		Connection: in.Connection, Concurrency: r.Concurrency, Proof: r.Proof, DeployTimeout: r.DeployTimeout, ProofTimeout: r.ProofTimeout,
		DryRun: r.DryRun, RequireApproval: r.RequireApproval, ApprovalTimeout: r.ApprovalTimeout,
		OnFailure: r.OnFailure, HoldTimeout: r.HoldTimeout, RetryTimeout: r.RetryTimeout, SettleTime: r.SettleTime, Change: in.Change,
	}
}

// rotationFields returns the fields of rotation as they were given. They are
// passed on unchanged: an explicit zero must not become a default. One that is null
// is left out.
//
// It decodes only what is part of the history.
//
//workflowcheck:ignore
func rotationFields(raw converter.RawValue) map[string]json.RawMessage {
	var given struct {
		Rotation map[string]json.RawMessage `json:"rotation"`
	}
	if data, err := jsonOf(raw); err == nil {
		_ = json.Unmarshal(data, &given) // parseRotateFleetInput decodes it strictly
	}
	maps.DeleteFunc(given.Rotation, func(_ string, value json.RawMessage) bool { return string(value) == "null" })
	return given.Rotation
}

// inputOf returns the input of a cluster's or project's rotation, with the records
// that it continues from; nil = none.
func (in RotateFleetInput) inputOf(ref ClusterRef, given map[string]json.RawMessage, completed any) map[string]any {
	input := map[string]any{}
	for _, name := range workflow.DeterministicKeys(given) {
		input[name] = given[name]
	}
	fields := fleetKindOf(in.Kind).inputFields(ref)
	for _, name := range workflow.DeterministicKeys(fields) {
		input[name] = fields[name]
	}
	input["connection"], input["onFailure"], input["change"] = in.Connection, in.Rotation.OnFailure, in.Change
	if completed != nil {
		input["completed"] = completed
	}
	return input
}
