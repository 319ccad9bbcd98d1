package workflows

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
	"keyturn/internal/ellipsis"
)

// MemoKey is the key of a workflow's memo that has a [Memo].
const MemoKey = "keyturn"

const (
	maxMemoClusters   = 5   // names in a memo
	maxMemoName       = 64  // characters of each
	maxMemoWaitingFor = 300 // characters
)

// Memo describes a rotation in its workflow's memo, which Temporal's list of
// workflows has: it can be read without a worker, also when the workflow has ended.
// Times are in UTC, to the millisecond.
type Memo struct {
	// FleetOf is what a fleet rotates; empty for any other rotation.
	FleetOf FleetKind `json:"fleetOf,omitempty"`
	// Connection is the input's.
	Connection string `json:"connection"`
	// ProjectID and ClusterID are the input's. A fleet has neither, and a rotation of
	// deployments has no ClusterID.
	ProjectID string `json:"projectId,omitempty"`
	ClusterID string `json:"clusterId,omitempty"`
	// Clusters are the display names of the clusters, once they are known: one of a
	// RotateCluster, up to 5 of a RotateDeployment, none of a fleet. Each has up to 64
	// characters.
	Clusters []string `json:"clusters,omitempty"`
	// ClustersNotListed is the number of names that Clusters leaves out.
	ClustersNotListed int `json:"clustersNotListed,omitempty"`
	// Ticket and RequestedBy are those of the input's Change.
	Ticket      string `json:"ticket,omitempty"`
	RequestedBy string `json:"requestedBy,omitempty"`
	// DryRun: it is a plan, which changes nothing.
	DryRun bool `json:"dryRun,omitempty"`
	// Targets is the number of targets, or of a fleet's clusters or projects; 0 = not
	// known yet.
	Targets int `json:"targets,omitempty"`
	// Phase is PhaseDone when the rotation has ended, also while the ledger records it:
	// the workflow is then still open. It is PhaseRecording only if that fails. A
	// workflow that has handed over has none before its end.
	Phase Phase `json:"phase"`
	// Since is when Phase was entered.
	Since time.Time `json:"since,omitzero"`
	// WaitingFor says in one sentence what the rotation waits for if a person has to do
	// it, in up to 300 characters; empty = nothing.
	WaitingFor string `json:"waitingFor,omitempty"`
	// Outcome is empty while the rotation runs. A workflow that was terminated, or
	// whose input was refused, leaves none.
	Outcome Outcome `json:"outcome,omitempty"`
	// Error is the type of the error that a rotation has failed with.
	Error ErrorType `json:"error,omitempty"`
	// HandedOverTo is the workflow ID of the rotation that this workflow has started,
	// because it has another ID itself; empty in that rotation.
	HandedOverTo string `json:"handedOverTo,omitempty"`
}

// setClusters takes the names that are known and fit.
func (m *Memo) setClusters(names ...string) {
	names = slices.DeleteFunc(names, func(name string) bool { return name == "" })
	for _, name := range names[:min(len(names), maxMemoClusters)] {
		m.Clusters = append(m.Clusters, ellipsis.Cut(name, maxMemoName))
	}
	m.ClustersNotListed = len(names) - len(m.Clusters)
}

// ReadMemo reads the memo that a workflow of this or another version has; false if it
// has none.
func ReadMemo(fields map[string]*commonpb.Payload) (Memo, bool) {
	var memo Memo
	payload, found := fields[MemoKey]
	if !found || converter.GetDefaultDataConverter().FromPayload(payload, &memo) != nil {
		return Memo{}, false
	}
	return memo, true
}

// memoKeeper keeps the memo of a workflow. Each change of it is an event of the
// history.
type memoKeeper struct {
	current Memo
	// ended is how the rotation has ended; nil = it has not.
	ended *ending
}

// ending is how a rotation has ended.
type ending struct {
	outcome   Outcome
	errorType ErrorType
}

// newMemoKeeper knows the memo of the run that this one continues: Temporal carries
// it over.
func newMemoKeeper(ctx workflow.Context, continued bool) memoKeeper {
	if !continued {
		return memoKeeper{}
	}
	current, _ := ReadMemo(workflow.GetInfo(ctx).Memo.GetFields())
	return memoKeeper{current: current}
}

// describe makes memo, which has everything but the end, the workflow's memo. It
// reports, and logs, that the rotation begins to wait for a person. The records are
// closed before the error is known: the memo waits for that.
func (k *memoKeeper) describe(ctx workflow.Context, memo Memo, ledgerProblem string) (beginsToWait bool) {
	if memo.Phase == PhaseDone || memo.Phase == PhaseRecording {
		if k.ended == nil {
			return false
		}
		memo.Phase, memo.Outcome, memo.Error = PhaseDone, k.ended.outcome, k.ended.errorType
		if ledgerProblem != "" {
			memo.Phase, memo.WaitingFor = PhaseRecording, waitingForLedger(ledgerProblem)
		}
	}
	memo.WaitingFor = ellipsis.Cut(memo.WaitingFor, maxMemoWaitingFor)
	beginsToWait = k.set(ctx, memo) && memo.WaitingFor != ""
	if beginsToWait {
		memo.log(ctx)
	}
	return beginsToWait
}

// set makes the memo this one, and reports whether the phase has changed.
func (k *memoKeeper) set(ctx workflow.Context, memo Memo) (entered bool) {
	memo.Since = k.current.Since
	if entered = memo.Phase != k.current.Phase; entered {
		memo.Since = timestamp(ctx)
	}
	if sameMemo(memo, k.current) {
		return false
	}
	k.current = memo
	if keepsMemo(ctx) {
		// It fails for a memo that is empty or cannot be encoded.
		_ = workflow.UpsertMemo(ctx, map[string]any{MemoKey: memo})
	}
	return entered
}

// It depends on nothing but its input; workflowcheck distrusts reflect.
//
//workflowcheck:ignore
func sameMemo(a, b Memo) bool { return reflect.DeepEqual(a, b) }

// keepsMemo is false in histories that were recorded before there was a memo.
func keepsMemo(ctx workflow.Context) bool {
	return workflow.GetVersion(ctx, "describe-in-memo", workflow.DefaultVersion, 1) == 1
}

// describe keeps the memo, and sends that the rotation begins to wait for approval.
func (r *rotation) describe(ctx workflow.Context) {
	memo := r.kind.newMemo()
	memo.Targets, memo.Phase = len(r.targets), r.currentPhase()
	memo.WaitingFor = r.waitingForOperator(memo.Phase)
	ledgerProblem := ""
	if memo.Phase == PhaseRecording {
		ledgerProblem = r.ledgerProblem
	}
	if r.memo.describe(ctx, memo, ledgerProblem) && memo.Phase == PhaseAwaitingApproval {
		r.sendWaiting(ctx, activities.EventRotationAwaitingApproval)
	}
}

// log writes that the rotation waits for a person. The worker adds connection, project
// and cluster ID.
func (m *Memo) log(ctx workflow.Context) {
	logger, write := workflow.GetLogger(ctx), workflow.GetLogger(ctx).Info
	if m.Phase == PhaseHeld || m.Phase == PhaseRecording {
		write = logger.Warn
	}
	write("the rotation waits for a person", "phase", m.Phase, "clusterName", m.names(), "ticket", m.Ticket, "requestedBy", m.RequestedBy, "waitingFor", m.WaitingFor)
}

// names are the clusters' names for a line of a log.
func (m *Memo) names() string {
	names := slices.Clone(m.Clusters)
	if m.ClustersNotListed > 0 {
		names = append(names, plural(m.ClustersNotListed, "more cluster"))
	}
	return strings.Join(names, ", ")
}

// closeMemo puts the outcome into the memo before the workflow closes. A run that
// continues as new has not ended.
func (r *rotation) closeMemo(ctx workflow.Context, err error) {
	if workflow.IsContinueAsNewError(err) {
		return
	}
	if !r.hasEnded() {
		r.finish(ctx, r.failedOutcome(ctx))
	}
	r.memo.ended = &ending{r.common.Outcome, ErrorTypeOf(err)}
	r.describe(ctx)
}

// memoOf is the memo of a rotation about which no more is known than its input.
func memoOf(s settings, clusterID string) Memo {
	return Memo{
		Connection: s.Connection, ProjectID: lower(s.ProjectID), ClusterID: clusterID, DryRun: s.DryRun,
		Ticket: s.Change.Ticket, RequestedBy: s.Change.RequestedBy,
	}
}

func (r *clusterRotation) newMemo() Memo {
	memo := memoOf(r.settings, lower(r.input.ClusterID))
	memo.setClusters(r.clusterName)
	return memo
}

func (r *deploymentRotation) newMemo() Memo {
	memo := memoOf(r.settings, "")
	memo.setClusters(clusterNamesOf(r.processes)...)
	return memo
}

// describedResult is a result that a memo describes.
type describedResult interface{ describeIn(memo *Memo) }

func (r *RotateClusterResult) describeIn(memo *Memo) {
	memo.Outcome, memo.Targets = r.Outcome, len(r.Targets)
	memo.setClusters(r.ClusterName)
}

func (r *RotateDeploymentResult) describeIn(memo *Memo) {
	memo.Outcome, memo.Targets = r.Outcome, len(r.Targets)
	memo.setClusters(clusterNamesOf(r.Targets)...)
}

// Memo is the memo that the progress would have: a workflow of an earlier version has
// none. Since is not known.
func (p *Progress) Memo() Memo {
	memo := Memo{Connection: p.Connection, ProjectID: lower(p.ProjectID), ClusterID: lower(p.ClusterID)}
	p.describeIn(&memo)
	return memo.ofProgress(p.Change, p.Phase, p.WaitingFor)
}

// Memo is that of a [Progress].
func (p *DeploymentProgress) Memo() Memo {
	memo := Memo{Connection: p.Connection, ProjectID: lower(p.ProjectID)}
	p.describeIn(&memo)
	return memo.ofProgress(p.Change, p.Phase, p.WaitingFor)
}

// Memo is that of a [Progress].
func (p *FleetProgress) Memo() Memo {
	memo := Memo{FleetOf: cmp.Or(p.Kind, FleetOfClusters), Connection: p.Connection, Targets: p.Counts.Clusters, Outcome: p.Outcome}
	return memo.ofProgress(p.Change, p.Phase, p.WaitingFor)
}

func (m Memo) ofProgress(change Change, phase Phase, waitingFor string) Memo {
	m.Ticket, m.RequestedBy, m.Phase, m.DryRun = change.Ticket, change.RequestedBy, phase, m.Outcome == OutcomePlanned
	if phase == PhaseAwaitingApproval || phase == PhaseHeld || phase == PhasePaused {
		m.WaitingFor = ellipsis.Cut(waitingFor, maxMemoWaitingFor)
	}
	return m
}

// clusterNamesOf are the names of the clusters that the processes belong to.
func clusterNamesOf(processes []ProcessRecord) (names []string) {
	for i, t := range processes {
		// The processes of a cluster follow each other.
		if i > 0 && processes[i-1].ClusterID == t.ClusterID {
			continue
		}
		if name := cmp.Or(t.ClusterName, t.ClusterID); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// describe keeps the memo.
func (f *fleet) describe(ctx workflow.Context) {
	memo := Memo{
		FleetOf: cmp.Or(f.input.Kind, FleetOfClusters), Connection: f.input.Connection, DryRun: f.input.Rotation.DryRun,
		Targets: f.result.Counts.Clusters, Ticket: f.input.Change.Ticket, RequestedBy: f.input.Change.RequestedBy, Phase: f.currentPhase(),
	}
	if f.isWaitingForResume() {
		memo.WaitingFor = f.waitingForResume()
	}
	ledgerProblem := ""
	if memo.Phase == PhaseRecording {
		ledgerProblem = f.ledgerProblem
	}
	f.memo.describe(ctx, memo, ledgerProblem)
}

// closeMemo is that of a rotation.
func (f *fleet) closeMemo(ctx workflow.Context, err error) {
	if workflow.IsContinueAsNewError(err) {
		return
	}
	if !f.isClosed() {
		f.finish(ctx, f.failedOutcome())
	}
	f.memo.ended = &ending{f.result.Outcome, ErrorTypeOf(err)}
	f.describe(ctx)
}
