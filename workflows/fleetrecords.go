package workflows

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyturn/internal/ellipsis"
)

const (
	// maxFailuresListed bounds the list of failures in a result.
	maxFailuresListed = 100
	// maxLeftOutListed bounds the list of clusters left out in a result, for
	// each reason: clusters without encryption must not displace busy ones. All
	// clusters that a run knows of and has not started fit in.
	maxLeftOutListed = listBatchSize + MaxClustersAtATime
	// maxFailureText bounds a failure's message in that list, in characters.
	maxFailureText = 500
)

// RotateFleetResult is the record of a fleet's rotation: its result, or the
// details of its failure (see [RotateFleetResultOf]). Its size does not grow with
// the fleet: each cluster's records are the result of its own rotation.
type RotateFleetResult struct {
	// Kind is the input's; empty in records of an earlier version, which only knew
	// FleetOfClusters.
	Kind FleetKind `json:"kind,omitempty"`
	// Connection is the input's.
	Connection string `json:"connection"`
	// Outcome is empty while the rotation runs.
	Outcome Outcome `json:"outcome"`
	// StartedAt is when the fleet started, in UTC, to the millisecond.
	StartedAt time.Time `json:"startedAt"`
	// FinishedAt is nil while the rotation runs.
	FinishedAt *time.Time `json:"finishedAt"`
	// Change is the input's.
	Change Change `json:"change"`
	// Continues is the fleet that this one continues; nil if it continues none.
	Continues *ContinuedFleet `json:"continues,omitempty"`
	// Counts has the number of clusters for each outcome.
	Counts FleetCounts `json:"counts"`
	// Actions are what operators did to the fleet, in that order, at most the
	// newest 200.
	Actions []Action `json:"actions"`
	// ActionsNotListed is the number of older actions.
	ActionsNotListed int `json:"actionsNotListed"`
	// TargetsVerified is the number of keys that were rotated and verified, over
	// all clusters.
	TargetsVerified int `json:"targetsVerified"`
	// TargetsRotated is the number of processes that were rotated, verified ones
	// among them, over all projects of a fleet of deployments; 0 for clusters.
	TargetsRotated int `json:"targetsRotated,omitempty"`
	// Failures are the first 100 failed clusters, and projects that could not be
	// listed.
	Failures []ClusterFailure `json:"failures"`
	// FailuresNotListed is the number of failures beyond those 100.
	FailuresNotListed int `json:"failuresNotListed"`
	// LeftOut are the clusters that were not rotated and have not failed: the
	// first 300 for each reason. Clusters that have not started are among them
	// when the fleet has ended.
	LeftOut []ClusterLeftOut `json:"leftOut"`
	// LeftOutNotListed is the number of clusters left out that LeftOut does not
	// have.
	LeftOutNotListed int `json:"leftOutNotListed"`
	// WithSkips reports that an operator skipped a target of some cluster.
	WithSkips bool `json:"withSkips,omitempty"`
}

// FleetCounts counts clusters, or in a fleet of deployments projects. Clusters minus
// all others, without those that say that they are a part of another one, is the
// number of clusters in progress.
type FleetCounts struct {
	// Clusters is the number of clusters that the fleet's input selects. A
	// project that cannot be listed counts as one cluster.
	Clusters int `json:"clusters"`
	// Rotated counts clusters whose rotation succeeded.
	Rotated int `json:"rotated"`
	// CarriedOver is the number of clusters in Rotated that were rotated before
	// this fleet, since the one that it continues started.
	CarriedOver int `json:"carriedOver,omitempty"`
	// Unproven is the number of projects in Rotated whose rotation ended as
	// OutcomeRotatedUnproven.
	Unproven int `json:"unproven,omitempty"`
	// Planned counts them in a dry run, in place of Rotated.
	Planned int `json:"planned,omitempty"`
	// Busy counts clusters with a running rotation that this fleet did not
	// start. They are not failures.
	Busy int `json:"busy"`
	// NotEncrypted counts clusters none of whose targets has a key, and projects in
	// which automation manages no process that has one. They are not failures.
	NotEncrypted int `json:"notEncrypted"`
	// Gone counts clusters, or projects, that Ops Manager listed, and no longer had
	// when their rotation started. They are not failures. Projects that the input
	// names are not listed: one that does not exist has failed.
	Gone int `json:"gone"`
	// Failed counts clusters whose rotation failed, and projects that could not
	// be listed.
	Failed int `json:"failed"`
	// FailedProjects is the number of projects in Failed.
	FailedProjects int `json:"failedProjects,omitempty"`
	// NotStarted counts clusters whose rotation has not started.
	NotStarted int `json:"notStarted"`
}

// Ended is the number of clusters that have ended in one way or another.
func (c FleetCounts) Ended() int { return c.Rotated + c.Planned + c.Failed + c.leftOut() }

// leftOut is the number of clusters that were left out while the fleet ran.
func (c FleetCounts) leftOut() int { return c.Busy + c.NotEncrypted + c.Gone }

// String is a sentence for operators about a fleet of clusters.
func (c FleetCounts) String() string { return c.Text(FleetOfClusters) }

// Text is a sentence for operators about a fleet of this kind.
func (c FleetCounts) Text(kind FleetKind) string {
	if c.Clusters == 0 {
		return "no " + kind.Noun() + "s listed"
	}
	done, what := c.Rotated, "rotated"
	if c.Planned > 0 { // of a dry run, which rotates none
		done, what = c.Planned, "planned"
	}
	text := fmt.Sprintf("%d of %d %ss %s", done, c.Clusters, kind.Noun(), what)
	if c.CarriedOver > 0 {
		text += fmt.Sprintf(" (%d before)", c.CarriedOver)
	}
	if c.Unproven > 0 {
		text += fmt.Sprintf(" (%d unproven)", c.Unproven)
	}
	for _, part := range []struct {
		n    int
		what string
	}{
		{c.Busy, "busy"}, {c.NotEncrypted, "not encrypted"}, {c.Gone, "gone"},
		{c.Failed - c.FailedProjects, "failed"}, {c.NotStarted, "not started"},
	} {
		if part.n > 0 {
			text += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	switch c.FailedProjects {
	case 0:
		return text
	case 1:
		return text + ", 1 project not listed"
	default:
		return fmt.Sprintf("%s, %d projects not listed", text, c.FailedProjects)
	}
}

// ClusterFailure is a failed cluster, with the rotation that has its records, or
// a project that could not be listed, with neither a cluster nor a rotation.
type ClusterFailure struct {
	ClusterRef
	// WorkflowID and RunID are the rotation; RunID is empty if none was started, and
	// both for a project that could not be listed.
	WorkflowID string `json:"workflowId"`
	RunID      string `json:"runId"`
	// Error is why it failed; its message has up to 500 characters.
	Error *TargetError `json:"error"`
}

// WasListed is false for a project whose clusters could not be listed.
func (f ClusterFailure) WasListed() bool { return f.ClusterID != "" || f.WorkflowID != "" }

// Name identifies the failure in a sentence.
func (f ClusterFailure) Name() string {
	return NameOf(f.ClusterRef)
}

// NameOf is the name of a fleet's cluster, or of its project, in a sentence.
func NameOf(ref ClusterRef) string {
	if ref.ClusterID == "" {
		return "project " + ref.ProjectID
	}
	return cmp.Or(ref.ClusterName, ref.ClusterID)
}

// LeftOutReason is why a cluster was left out.
type LeftOutReason string

// Reasons for which a cluster is left out.
const (
	LeftOutBusy         LeftOutReason = "busy"         // another rotation of the cluster runs
	LeftOutNotEncrypted LeftOutReason = "notEncrypted" // no target of the cluster, or no automated process of the project, has a key
	LeftOutGone         LeftOutReason = "gone"         // Ops Manager no longer has the cluster
	LeftOutNotStarted   LeftOutReason = "notStarted"   // the fleet ended before it started the cluster
)

// ClusterLeftOut is a cluster that was not rotated, and has not failed.
type ClusterLeftOut struct {
	ClusterRef
	// Reason is why the cluster was left out.
	Reason LeftOutReason `json:"reason"`
}

// Remaining returns the clusters that the fleet did not rotate, and that another
// fleet could: those that failed, were busy or were not started, by project ID
// and cluster ID. complete is false if there are others that the records do not
// list, or if projects could not be listed.
func (r *RotateFleetResult) Remaining() (clusters []ClusterRef, complete bool) {
	for _, failed := range r.Failures {
		if failed.WasListed() {
			clusters = append(clusters, failed.ClusterRef)
		}
	}
	listed := 0
	for _, left := range r.LeftOut {
		if left.Reason == LeftOutBusy || left.Reason == LeftOutNotStarted {
			clusters = append(clusters, left.ClusterRef)
			listed++
		}
	}
	slices.SortFunc(clusters, func(a, b ClusterRef) int {
		return cmp.Or(strings.Compare(a.ProjectID, b.ProjectID), strings.Compare(a.ClusterID, b.ClusterID))
	})
	complete = r.FailuresNotListed == 0 && r.Counts.FailedProjects == 0 && listed == r.Counts.Busy+r.Counts.NotStarted
	return clusters, complete
}

// FleetProgress is the response to the progress query and to every update of a
// fleet.
type FleetProgress struct {
	RotateFleetResult
	// Phase is what the fleet is doing.
	Phase Phase `json:"phase"`
	// WaitingFor describes what the fleet is waiting for; empty when it has ended.
	WaitingFor string `json:"waitingFor"`
	// InProgress are the clusters in progress, at most ClustersAtATime.
	InProgress []FleetCluster `json:"inWork"`
	// ClustersPerHour is the average rate since the start; 0 = not known yet.
	ClustersPerHour float64 `json:"clustersPerHour"`
	// SecondsLeft is the estimated time to the end at that rate, in seconds; 0 =
	// not known yet, or no cluster will be started any more.
	SecondsLeft int `json:"secondsLeft"`
}

// FleetCluster is a cluster that is being rotated.
type FleetCluster struct {
	ClusterRef
	// WorkflowID is the workflow of the cluster's rotation.
	WorkflowID string `json:"workflowId"`
	// StartedAt is when the fleet started that rotation, in UTC.
	StartedAt time.Time `json:"startedAt"`
}

// RotateFleetResultOf returns the records in the error of a fleet's rotation;
// false if it has none, because the fleet failed before it listed its clusters.
func RotateFleetResultOf(err error) (*RotateFleetResult, bool) {
	var result RotateFleetResult
	if !recordsIn(err, &result) || result.Connection == "" || result.Failures == nil {
		return nil, false
	}
	return &result, true
}

func (e *TargetError) shortened() *TargetError {
	return &TargetError{Type: e.Type, Message: ellipsis.Cut(e.Message, maxFailureText)}
}
