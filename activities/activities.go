package activities

import (
	"context"
	"slices"
	"strings"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"

	"keyturn/internal/kmipevidence"
	"keyturn/internal/ledgerentry"
	"keyturn/opsmanager"
)

// Names of the activity types.
const (
	ListTargetsName  = "ListTargets"  // finds the shards and the config server of a cluster
	ReadKeysName     = "ReadKeys"     // reads the current keys
	RotateKeyName    = "RotateKey"    // sends the PUT
	VerifyKeyName    = "VerifyKey"    // reads a key until it is a new one
	ListClustersName = "ListClusters" // lists the clusters of projects

	ListProjectsName    = "ListProjects"    // lists projects
	ListKeyClustersName = "ListKeyClusters" // lists the clusters of a project whose keys are to be listed
	ListClusterKeysName = "ListClusterKeys" // reads keys, snapshots and restore jobs of clusters

	ListProcessesName   = "ListProcesses"   // finds the processes of a deployment whose keys can be rotated
	PublishRotationName = "PublishRotation" // publishes the time of a rotation
	AwaitRotationName   = "AwaitRotation"   // waits until agents have restarted processes with it
	ProveRotationName   = "ProveRotation"   // waits for a snapshot that shows a new key

	RecordRotationName = "RecordRotation" // records the end of a rotation in the ledger

	SendEventName = "SendEvent" // sends an event to the receiver of events
)

// Activities are the steps of a rotation. Its methods are safe for concurrent
// use.
type Activities struct {
	// Connections are the Ops Managers that this worker is configured with,
	// by the name that a rotation's input gives.
	Connections map[string]*opsmanager.Client
	// KMIP are the KMIP servers that are asked about the keys of connections, by
	// the connection's name. None is required.
	KMIP map[string]*kmipevidence.Client
	// Ledger records rotations that have ended; nil = there is none.
	Ledger ledgerentry.Appender
	// Events sends events; nil = the worker sends none.
	Events EventSender
	// Heartbeat records a heartbeat and reports whether Temporal has it; nil =
	// through the client of the worker that runs the activity.
	Heartbeat func(ctx context.Context, taskToken []byte, details any) error

	completions completionBatcher
	lists       clusterLists
	slowKMIP    pauses
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

		ListProjectsName:    a.ListProjects,
		ListKeyClustersName: a.ListKeyClusters,
		ListClusterKeysName: a.ListClusterKeys,

		ListProcessesName:   a.ListProcesses,
		PublishRotationName: a.PublishRotation,
		AwaitRotationName:   a.AwaitRotation,
		ProveRotationName:   a.ProveRotation,

		RecordRotationName: a.RecordRotation,

		SendEventName: a.SendEvent,
	} {
		registry.RegisterActivityWithOptions(method, activity.RegisterOptions{Name: name})
	}
}

// Scope says where an activity works and how long it retries.
type Scope struct {
	// Connection names one of Activities.Connections; required.
	Connection string `json:"connection"`
	// ProjectID is Ops Manager's ID of the project; empty in activities that work on
	// several.
	ProjectID string `json:"projectId,omitempty"`
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
	return nil, permanent(ErrorUnknownConnection, "connection %q is not configured in the worker (configured: %s); set OPS_MANAGER_URL or KEYTURN_CONNECTIONS_FILE for the worker",
		scope.Connection, strings.Join(names, ", "))
}

// lowPriority is where an activity's requests let others go first: Temporal's
// default is 3, and a smaller number goes before a greater one.
const lowPriority = 4

func hasLowPriority(info activity.Info) bool { return info.Priority.PriorityKey >= lowPriority }

// startAttempt starts an attempt: its client, the notes of the attempts before, and a
// heartbeat until end is called. What the attempt does, it does under the
// context that it is given back.
func (a *Activities) startAttempt(ctx context.Context, scope Scope) (context.Context, *attempt, error) {
	client, err := a.client(scope)
	if err != nil {
		return ctx, nil, err
	}
	info := activity.GetInfo(ctx)
	if hasLowPriority(info) {
		ctx = opsmanager.WithLowPriority(ctx)
	}
	at := newAttempt(ctx, client, scope)
	at.recordHeartbeat = a.heartbeat()
	at.awaitBatch = a.completions.join(info.WorkflowExecution.RunID)
	return ctx, at, nil
}
