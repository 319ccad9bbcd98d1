package activities

import (
	"context"
	"slices"
	"strings"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"

	"keyturn/opsmanager"
)

// Names of the activity types.
const (
	ListTargetsName  = "ListTargets"
	ReadKeysName     = "ReadKeys"
	RotateKeyName    = "RotateKey"
	VerifyKeyName    = "VerifyKey"
	ListClustersName = "ListClusters"
)

// Activities are the steps of a rotation. Its methods are safe for concurrent
// use.
type Activities struct {
	// Connections are the Ops Managers that this worker is configured with,
	// by the name that a rotation's input gives.
	Connections map[string]*opsmanager.Client
	// Heartbeat records a heartbeat and tells whether Temporal has it; nil =
	// through the client of the worker that runs the activity.
	Heartbeat func(ctx context.Context, taskToken []byte, details any) error

	unison unison
}

func (a *Activities) heartbeat() func(ctx context.Context, taskToken []byte, details any) error {
	if a.Heartbeat != nil {
		return a.Heartbeat
	}
	return func(ctx context.Context, taskToken []byte, details any) error {
		return activity.GetClient(ctx).RecordActivityHeartbeat(ctx, taskToken, details)
	}
}

// Register registers the activities under their names.
func Register(registry worker.ActivityRegistry, a *Activities) {
	for name, method := range map[string]any{
		ListTargetsName:  a.ListTargets,
		ReadKeysName:     a.ReadKeys,
		RotateKeyName:    a.RotateKey,
		VerifyKeyName:    a.VerifyKey,
		ListClustersName: a.ListClusters,
	} {
		registry.RegisterActivityWithOptions(method, activity.RegisterOptions{Name: name})
	}
}

// Scope says where an activity works and how patient it is.
type Scope struct {
	Connection string `json:"connection"`
	ProjectID  string `json:"projectId,omitempty"`
	// RetryTimeout is how long transient errors are retried, counted from the
	// first one.
	RetryTimeout Duration `json:"retryTimeout"`
}

func (a *Activities) client(scope Scope) (*opsmanager.Client, error) {
	client, found := a.Connections[scope.Connection]
	if found {
		return client, nil
	}
	var names []string
	for name := range a.Connections {
		names = append(names, name)
	}
	slices.Sort(names)
	return nil, permanent(ErrorUnknownConnection, "connection %q is not one that this worker is configured with (%s); set OPS_MANAGER_URL or KEYTURN_CONNECTIONS_FILE of the worker",
		scope.Connection, strings.Join(names, ", "))
}

// lowPriority is where an activity's requests let others go first: Temporal's
// default is 3, and a smaller number goes before a greater one.
const lowPriority = 4

// begin starts an attempt: its client, the notes of the attempts before, and a
// heartbeat until end is called. What the attempt does, it does under the
// context that it is given back.
func (a *Activities) begin(ctx context.Context, scope Scope) (context.Context, *attempt, error) {
	client, err := a.client(scope)
	if err != nil {
		return ctx, nil, err
	}
	info := activity.GetInfo(ctx)
	if info.Priority.PriorityKey >= lowPriority {
		ctx = opsmanager.Patiently(ctx)
	}
	at := newAttempt(ctx, client, scope)
	at.recordHeartbeat = a.heartbeat()
	at.inUnison = a.unison.enter(info.WorkflowExecution.RunID)
	return ctx, at, nil
}
