package faultinjection

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/invariants"
	"keyturn/workflows"
)

// deploymentKind has two replica sets, of two members and of one, and proves both
// with snapshots; with -long three, of which two are published together.
var deploymentKind = kind{
	name: "Deployment", change: "PUT noSecrets", readings: 1, continuesRarely: true,
	add: func(s fixture.Server) rotation {
		clusters := []simulator.DeployedCluster{{Name: "audit", Members: 2}, {Name: "books", Members: 1}}
		if *long {
			clusters = append(clusters, simulator.DeployedCluster{Name: "carts", Members: 2})
		}
		return newDeploymentRotation(s, simulator.DeploymentOptions{Clusters: clusters})
	},
	isTested:  isDeploymentSample,
	isResetAt: func(p killPoint, toFirst bool) bool { return isDeploymentSample(p) && p.after != toFirst },
}

// isDeploymentSample: there are twice as many messages as for a cluster, most of them
// of one of the few activities.
func isDeploymentSample(p killPoint) bool {
	return p.number%14 == 7 || strings.HasPrefix(p.name, "PUT")
}

// deploymentRotation is a rotation of a deployment.
type deploymentRotation struct {
	fixture.Server
	*simulator.Deployment
	input workflows.RotateDeploymentInput
}

// Durations of rotations of deployments.
const (
	// deployTimeout decides how often the agents are asked.
	deployTimeout = 2 * time.Minute
	proofTimeout  = 2 * time.Minute
)

// newDeploymentRotation adds a deployment, with a snapshot of each cluster whenever
// the members of one of its replica sets have all been rotated.
func newDeploymentRotation(s fixture.Server, options simulator.DeploymentOptions) deploymentRotation {
	s.Helper()
	r := newUnsnapshottedRotation(s, options)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.takeSnapshots(ctx)
	}()
	s.Cleanup(func() { cancel(); <-done })
	return r
}

// newUnsnapshottedRotation adds a deployment of which no further snapshot is taken.
func newUnsnapshottedRotation(s fixture.Server, options simulator.DeploymentOptions) deploymentRotation {
	s.Helper()
	r := deploymentRotation{s, s.Deploy(options).Deployment, s.DeploymentInput()}
	r.input.Proof = workflows.ProofSnapshot
	r.input.RetryTimeout, r.input.SettleTime = workflows.Duration(retryTimeout), workflows.Duration(settleTime)
	r.input.DeployTimeout, r.input.ProofTimeout = workflows.Duration(deployTimeout), workflows.Duration(proofTimeout)
	if *long {
		r.input.Concurrency = 2
	}
	return r
}

// takeSnapshots takes a snapshot after every rotation of a process, from the members
// that the first snapshot of the deployment was taken from.
func (r deploymentRotation) takeSnapshots(ctx context.Context) {
	last := map[string]string{}
	for _, p := range r.Processes() {
		last[p.ReplicaSet] = p.Name
	}
	from := slices.Collect(maps.Values(last))
	for taken := 0; ; taken++ {
		if r.OM.Await(ctx, func(l simulator.Ledger) bool { return len(l.MemberRotationsOf(r.ProjectID, "")) > taken }) != nil {
			return
		}
		rotation := r.Rotations("")[taken]
		// Ops Manager shows milliseconds.
		r.TakeMemberSnapshot(r.clusterOf(rotation.Process), simulator.MemberSnapshot{From: from, Created: rotation.At.Add(2 * time.Millisecond)})
	}
}

// clusterOf is the top-level cluster of a process.
func (r deploymentRotation) clusterOf(process string) string {
	p := r.Process(process)
	if p.ParentID != "" {
		return p.ParentID
	}
	return p.ClusterID
}

// members are the processes that have a key.
func (r deploymentRotation) members() (members []string) {
	for _, p := range r.Processes() {
		if !p.Mongos {
			members = append(members, p.Name)
		}
	}
	return members
}

func (r deploymentRotation) start() workflowRun { return r.StartDeployment(r.input) }

func (r deploymentRotation) requireRotated(run workflowRun) rotated {
	r.Helper()
	result, err := r.DeploymentResult(run)
	require.NoError(r, err)
	return r.requireAllRotated(result)
}

// requireAllRotated requires that every process was rotated once, and that every
// replica set is proven.
func (r deploymentRotation) requireAllRotated(result workflows.RotateDeploymentResult) rotated {
	r.Helper()
	require.Equal(r, workflows.OutcomeRotated, result.Outcome)
	require.Len(r, result.Targets, len(r.members()))
	r.requirePromise(result.Targets)
	proven := map[string]bool{}
	for _, t := range result.Targets {
		require.Len(r, r.Rotations(t.Process), 1, t.Process)
		proven[t.ReplicaSet] = proven[t.ReplicaSet] || t.Status == workflows.StatusVerified
	}
	if r.input.Proof != workflows.ProofAgent {
		for set, isProven := range proven {
			assert.True(r, isProven, set)
		}
	}
	return rotated{
		isAmbiguous: slices.ContainsFunc(result.Targets, func(t workflows.ProcessRecord) bool { return t.Ambiguous }),
		records:     describeProcesses(result.Targets),
	}
}

func (r deploymentRotation) requirePromise(records []workflows.ProcessRecord) {
	r.Helper()
	require.NoError(r, invariants.CheckPromise(r.Deployment, records))
}

// describeProcesses has what no reset may change.
func describeProcesses(records []workflows.ProcessRecord) (described []string) {
	for _, t := range records {
		described = append(described, fmt.Sprintf("%s %s at %s, restarted %s, %s -> %s", t.Process, t.Status, t.RotateAt, t.RotatedAt, t.PreviousKeyUUID, t.NewKeyUUID))
	}
	return described
}

func (r deploymentRotation) requireRotatedOrAborted(run workflowRun, puts int) {
	r.Helper()
	result, err := r.DeploymentResult(run)
	if err == nil {
		r.requireAllRotated(result)
		return
	}
	fixture.RequireFailure(r, err, workflows.ErrorAborted)
	records, found := workflows.RotateDeploymentResultOf(err)
	require.True(r, found, "%v", err)
	r.requirePromise(records.Targets)
	for _, t := range records.Targets {
		isRotated := t.Status == workflows.StatusRotated || t.Status == workflows.StatusVerified
		assert.Equal(r, len(r.Rotations(t.Process)) == 1, isRotated, "every rotated process is recorded: %s", t.Process)
	}
	// The PUT that the worker was about to send, or had in a task, is still sent.
	assert.LessOrEqual(r, len(r.Puts()), puts+1)
}
