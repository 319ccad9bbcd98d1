package main

import (
	"keyturn/workflows"
)

// kind is what can be rotated, as far as its kinds differ on the command line.
type kind struct {
	workflowType string
	// rotation names a rotation in messages, and neverRotated says that there was none.
	rotation, neverRotated string
	// noun is what an input names, and records are whose records a report has.
	noun, records string
	workflowID    func(rotationName) string
	// flags name the rotation on the command line, except for its connection.
	flags func(rotationName) []string
	// newStatus is a status to read a progress or a result into, and inFailure finds
	// the records in a workflow's failure.
	newStatus func() statusView
	inFailure func(error) (statusView, bool)
	// noRecords are those of a rotation that has left none; nil for a fleet.
	noRecords func(rotationName) targetRecords
}

var clusterKind = kind{
	workflowType: workflows.RotateClusterType,
	rotation:     string(workflows.ErrorClusterBusy) + ": a rotation of this cluster",
	neverRotated: "this cluster was never rotated (for the keys of its project's deployments, give --deployment and --project)",
	noun:         "cluster",
	records:      "a cluster's rotation",
	workflowID:   func(n rotationName) string { return workflows.RotateClusterID(n.connection, n.project, n.cluster) },
	flags:        func(n rotationName) []string { return []string{"--project", n.project, "--cluster", n.cluster} },
	newStatus:    func() statusView { return clusterStatusOf(workflows.Progress{}) },
	inFailure: inFailure(workflows.RotateClusterResultOf, func(result workflows.RotateClusterResult) statusView {
		return clusterStatusOf(workflows.Progress{RotateClusterResult: result})
	}),
	noRecords: func(n rotationName) targetRecords {
		return &clusterRecords{workflows.Progress{RotateClusterResult: workflows.RotateClusterResult{Connection: n.connection, ProjectID: n.project, ClusterID: n.cluster}}}
	},
}

var deploymentKind = kind{
	workflowType: workflows.RotateDeploymentType,
	rotation:     string(workflows.ErrorClusterBusy) + ": a rotation of this project's deployments",
	neverRotated: "the deployments of this project were never rotated",
	noun:         "project",
	records:      "a rotation of deployments",
	workflowID:   func(n rotationName) string { return workflows.RotateDeploymentID(n.connection, n.project) },
	flags:        func(n rotationName) []string { return []string{"--deployment", "--project", n.project} },
	newStatus:    func() statusView { return deploymentStatusOf(workflows.DeploymentProgress{}) },
	inFailure: inFailure(workflows.RotateDeploymentResultOf, func(result workflows.RotateDeploymentResult) statusView {
		return deploymentStatusOf(workflows.DeploymentProgress{RotateDeploymentResult: result})
	}),
	noRecords: func(n rotationName) targetRecords {
		return &deploymentRecords{workflows.DeploymentProgress{RotateDeploymentResult: workflows.RotateDeploymentResult{Connection: n.connection, ProjectID: n.project}}}
	},
}

var fleetKind = kind{
	workflowType: workflows.RotateFleetType,
	rotation:     "a rotation of this connection's fleet",
	neverRotated: "this fleet was never rotated",
	noun:         "fleet",
	records:      "a fleet",
	workflowID:   func(n rotationName) string { return workflows.RotateFleetID(n.connection) },
	flags:        func(rotationName) []string { return []string{"--fleet"} },
	newStatus:    func() statusView { return &fleetStatus{} },
	inFailure: inFailure(workflows.RotateFleetResultOf, func(result workflows.RotateFleetResult) statusView {
		return &fleetStatus{FleetProgress: workflows.FleetProgress{RotateFleetResult: result}}
	}),
}

// deploymentFleetKind is a fleet of another kind: what it rotates has other keys, and
// both may run at the same time.
var deploymentFleetKind = kind{
	workflowType: fleetKind.workflowType,
	rotation:     "a rotation of this connection's fleet of deployments",
	neverRotated: "this fleet of deployments was never rotated",
	noun:         fleetKind.noun,
	records:      "a fleet of deployments",
	workflowID:   func(n rotationName) string { return workflows.RotateDeploymentFleetID(n.connection) },
	flags:        func(rotationName) []string { return []string{"--fleet", "--deployment"} },
	newStatus:    fleetKind.newStatus,
	inFailure:    fleetKind.inFailure,
}

// inFailure makes a status of the records in a workflow's failure.
func inFailure[Result any](find func(error) (*Result, bool), status func(Result) statusView) func(error) (statusView, bool) {
	return func(failure error) (statusView, bool) {
		result, found := find(failure)
		if !found {
			return nil, false
		}
		return status(*result), true
	}
}

func (n rotationName) kind() kind {
	switch {
	case n.fleet && n.deployment:
		return deploymentFleetKind
	case n.fleet:
		return fleetKind
	case n.deployment:
		return deploymentKind
	default:
		return clusterKind
	}
}

func (n rotationName) newStatus() statusView { return n.kind().newStatus() }
