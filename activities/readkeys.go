package activities

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"golang.org/x/sync/errgroup"
)

// ReadKeysInput names the targets whose keys are read.
type ReadKeysInput struct {
	Scope
	ClusterIDs []string `json:"clusterIds"`
	// Concurrency is how many are read at a time.
	Concurrency int `json:"concurrency"`
}

// ReadKeysResult has the keys in the order of the input.
type ReadKeysResult struct {
	Keys []Key `json:"keys"`
	// ReadIn is the run of the workflow that the keys were read in.
	ReadIn string `json:"readIn"`
}

// Key is the id of the master key of one target's backup, as read by a GET.
type Key struct {
	ClusterID string    `json:"clusterId"`
	KeyUUID   string    `json:"keyUUID"`
	ReadAt    time.Time `json:"readAt"`
}

// ReadKeys reads the keys of many targets, changing nothing. Another attempt
// reads only what is missing.
func (a *Activities) ReadKeys(ctx context.Context, in ReadKeysInput) (ReadKeysResult, error) {
	at, err := a.begin(ctx, in.Scope)
	if err != nil {
		return ReadKeysResult{}, err
	}
	defer at.end()
	found := map[string]Key{}
	for _, key := range at.currentNotes().Keys {
		found[key.ClusterID] = key
	}
	if err := at.readMissing(ctx, in, found); err != nil {
		return ReadKeysResult{}, at.failure(err)
	}
	result := ReadKeysResult{ReadIn: activity.GetInfo(ctx).WorkflowExecution.RunID}
	for _, id := range in.ClusterIDs {
		result.Keys = append(result.Keys, found[id])
	}
	return result, nil
}

func (at *attempt) readMissing(ctx context.Context, in ReadKeysInput, found map[string]Key) error {
	missing := slices.DeleteFunc(slices.Clone(in.ClusterIDs), func(id string) bool { _, ok := found[id]; return ok })
	var mu sync.Mutex
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(max(in.Concurrency, 1))
	for _, id := range missing {
		group.Go(func() error {
			uuid, err := at.readKey(groupCtx, id, false)
			if err != nil {
				return err
			}
			key := Key{ClusterID: id, KeyUUID: uuid, ReadAt: now()}
			mu.Lock()
			defer mu.Unlock()
			found[id] = key
			at.note(func(n *notes) { n.FailingSince = time.Time{}; n.Keys = append(slices.Clip(n.Keys), key) })
			return nil
		})
	}
	return group.Wait()
}

// now is the time as records show it: UTC, to the millisecond.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
