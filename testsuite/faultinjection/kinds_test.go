package faultinjection

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/workflows"
)

// kind is a kind of rotation. What happens to workers, to Temporal and to workflows
// happens to both kinds alike, and both must withstand it.
type kind struct {
	name string
	// add adds what is to be rotated to a server.
	add func(s fixture.Server) rotation
	// change is the message that changes a target.
	change string
	// readings is how many activities read what is to be rotated.
	readings int
	// isTested reports whether a point is tested without the flag -long, and
	// isResetAt whether a running rotation is reset there to the first or to the last
	// point.
	isTested  func(p killPoint) bool
	isResetAt func(p killPoint, toFirst bool) bool
	// continuesRarely: it has few events for each message.
	continuesRarely bool
}

// rotation is one rotation, of the kind's smallest size unless -long asks for more.
type rotation interface {
	// start starts it under its own ID.
	start() workflowRun
	// requireRotated waits for its end, and requires that each target was rotated
	// once, and that the records say so.
	requireRotated(run workflowRun) rotated
	// requireRotatedOrAborted does so for one that was canceled when it had sent this
	// many PUTs: it may have been at its end, or it has aborted, with a record of each
	// target that was rotated.
	requireRotatedOrAborted(run workflowRun, puts int)
}

// rotated is what the records of a rotation say.
type rotated struct {
	// isAmbiguous: the outcome of a PUT was unknown at some point.
	isAmbiguous bool
	// records are the targets with what was done to them.
	records []string
}

var kinds = []kind{clusterKind, deploymentKind}

// rotationFixture is a server with what is rotated.
type rotationFixture struct {
	fixture.Server
	rotation
	kind
}

func newRotationFixture(t *testing.T, server *temporalserver.Server, k kind) rotationFixture {
	t.Helper()
	s := fixture.NewServerOn(t, server, simulator.Options{})
	s.Unrecorded = true
	s.TaskQueue += "-" + s.Project // a test may have several on one server
	return rotationFixture{s, k.add(s), k}
}

// clusterReadings is how many activities read the targets of a cluster and their keys.
const clusterReadings = 2

// clusterKind has two targets, rotated one after the other. With -long it has four,
// of which three are rotated in parallel after the first. Without it, half of the
// points are tested, and those of all PUTs.
var clusterKind = kind{
	name: "Cluster", change: "PUT encryptionKey", readings: clusterReadings,
	add: func(s fixture.Server) rotation {
		shards := 1
		if *long {
			shards = 3
		}
		return clusterRotation{s, s.OM.AddShardedCluster(s.Project, "orders", shards)}
	},
	isTested:  func(p killPoint) bool { return p.isOnChosenSide() || strings.HasPrefix(p.name, http.MethodPut) },
	isResetAt: func(p killPoint, toFirst bool) bool { return p.isOnChosenSide() && p.number%4 < 2 == toFirst },
}

type clusterRotation struct {
	fixture.Server
	cluster simulator.ShardedCluster
}

func (r clusterRotation) input() workflows.RotateClusterInput {
	input := inputOf(r.Server, r.cluster.ID)
	input.Concurrency = 1
	if *long {
		input.Concurrency = 3
	}
	return input
}

func (r clusterRotation) start() workflowRun { return r.Start(r.input()) }

func (r clusterRotation) requireRotated(run workflowRun) rotated {
	r.Helper()
	result := r.RequireRotated(run, len(r.cluster.TargetIDs()))
	return rotated{
		isAmbiguous: slices.ContainsFunc(result.Targets, func(t workflows.TargetRecord) bool { return t.Ambiguous }),
		records:     keysOf(result),
	}
}

func (r clusterRotation) requireRotatedOrAborted(run workflowRun, puts int) {
	r.Helper()
	result, err := r.Result(run)
	if err == nil {
		require.Equal(r, workflows.OutcomeRotated, result.Outcome)
		r.RequireMatchesLedger(result.Targets)
		return
	}
	fixture.RequireFailure(r, err, workflows.ErrorAborted)
	records, found := workflows.RotateClusterResultOf(err)
	require.True(r, found)
	r.RequireMatchesLedger(records.Targets)
	applied := len(r.OM.Ledger().Rotations)
	assert.Equal(r, applied, countOf(records.Targets, workflows.StatusVerified), "every rotated target is recorded")
	// The PUT that the worker was about to send, or had in a task, is still
	// sent.
	assert.LessOrEqual(r, applied, puts+r.input().Concurrency)
}
