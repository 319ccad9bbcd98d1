// Package environment runs rotations in the SDK's test environment, with the
// real activities against a simulated Ops Manager.
package environment

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	sdktestsuite "go.temporal.io/sdk/testsuite"

	"keyturn/activities"
	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// Project is the project of the simulated clusters.
const Project = simulator.DefaultProjectID

// Environment runs one workflow.
type Environment struct {
	*sdktestsuite.TestWorkflowEnvironment
	t testing.TB
	// OM is the Ops Manager that is called.
	OM *simulator.Server
	// Counts are the metrics of workflow and activities.
	Counts Counts
}

// New makes an environment whose activities have one connection, "default".
func New(t testing.TB, om *simulator.Server) Environment {
	t.Helper()
	return NewWithClient(t, om, Client(t, om))
}

// NewWithClient is New with a client of the caller's.
func NewWithClient(t testing.TB, om *simulator.Server, c *opsmanager.Client) Environment {
	t.Helper()
	var suite sdktestsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	counts := NewCounts()
	suite.SetMetricsHandler(counts)
	env := Environment{suite.NewTestWorkflowEnvironment(), t, om, counts}
	workflows.Register(env)
	activities.Register(env, &activities.Activities{
		Connections: map[string]*opsmanager.Client{workflows.DefaultConnection: c},
		Heartbeat:   heartbeat,
	})
	env.SetTestTimeout(30 * time.Second)
	return env
}

// Client is an Ops Manager client with a deadline that suits a test.
func Client(t testing.TB, om *simulator.Server) *opsmanager.Client {
	t.Helper()
	c, err := opsmanager.New(opsmanager.Config{
		BaseURL: om.URL, PublicKey: simulator.DefaultPublicKey, PrivateKey: simulator.DefaultPrivateKey,
		CAPEM: om.CAPEM, RequestTimeout: time.Second,
	})
	require.NoError(t, err)
	return c
}

// Input has times that suit a test, whose activities wait in real time.
func Input(clusterID string) workflows.RotateClusterInput {
	return workflows.RotateClusterInput{
		ProjectID: Project, ClusterID: clusterID, OnFailure: workflows.OnFailureStop,
		RetryTimeout:  workflows.Duration(5 * time.Second),
		SettleTime:    workflows.Duration(100 * time.Millisecond),
		VerifyTimeout: workflows.Duration(300 * time.Millisecond),
		Change:        workflows.Change{Ticket: "CHG0031337", RequestedBy: "dana"},
	}
}

// Rotate runs a rotation under its own id.
func (env Environment) Rotate(input workflows.RotateClusterInput) (workflows.RotateClusterResult, error) {
	env.t.Helper()
	connection := input.Connection
	if connection == "" {
		connection = workflows.DefaultConnection
	}
	return env.Start(workflows.RotateClusterID(connection, input.ProjectID, input.ClusterID), input)
}

// Start runs RotateCluster under any id and with any arguments.
func (env Environment) Start(id string, arguments ...any) (result workflows.RotateClusterResult, err error) {
	env.t.Helper()
	env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: id, TaskQueue: workflows.DefaultTaskQueue})
	env.ExecuteWorkflow(workflows.RotateClusterType, arguments...)
	require.True(env.t, env.IsWorkflowCompleted(), "the workflow must end")
	if err := env.GetWorkflowError(); err != nil {
		return result, err
	}
	require.NoError(env.t, env.GetWorkflowResult(&result))
	return result, nil
}

// Progress asks the progress query.
func (env Environment) Progress() workflows.Progress {
	env.t.Helper()
	p, err := env.askProgress()
	require.NoError(env.t, err)
	return p
}

func (env Environment) askProgress() (p workflows.Progress, err error) {
	value, err := env.QueryWorkflow(workflows.ProgressQuery)
	if err != nil {
		return p, err
	}
	return p, value.Get(&p)
}

// Command sends an operator's command that must be carried out.
func (env Environment) Command(name string, request any) { env.send(name, request, "") }

// Refused sends an operator's command that must be refused for this reason.
func (env Environment) Refused(name string, request any, reason string) {
	env.send(name, request, reason)
}

// send hands a command to the environment, which takes it up later: so what
// becomes of it is checked when it is known, and that it is, when the test ends.
func (env Environment) send(name string, request any, reason string) {
	env.t.Helper()
	answered := false
	env.t.Cleanup(func() { assert.True(env.t, answered, "%s %v was not answered", name, request) })
	env.UpdateWorkflow(name, "", &sdktestsuite.TestUpdateCallback{
		OnReject: func(err error) {
			answered = true
			if reason == "" {
				assert.NoError(env.t, err, name)
			} else {
				assert.ErrorContains(env.t, err, reason, name)
			}
		},
		OnAccept: func() { assert.Empty(env.t, reason, "%s %v must be refused", name, request) },
		OnComplete: func(_ any, err error) {
			answered = true
			assert.NoError(env.t, err, name)
		},
	}, request)
}

// When does something as soon as a condition holds of the progress. Before the
// workflow has begun, nobody answers the query: then it looks again.
func (env Environment) When(holds func(workflows.Progress) bool, do func(workflows.Progress)) {
	var look func()
	look = func() {
		if p, err := env.askProgress(); err == nil && holds(p) {
			do(p)
			return
		}
		env.RegisterDelayedCallback(look, 10*time.Millisecond)
	}
	env.RegisterDelayedCallback(look, time.Millisecond)
}

// InPhase is a condition for When.
func InPhase(phase string) func(workflows.Progress) bool {
	return func(p workflows.Progress) bool { return p.Phase == phase }
}

// heartbeat stands in for the client's, which the test environment lacks.
func heartbeat(ctx context.Context, _ []byte, details any) error {
	activity.RecordHeartbeat(ctx, details)
	return ctx.Err()
}
