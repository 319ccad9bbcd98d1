package activities

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"keyturn/opsmanager"
)

// ReadKeysInput names the targets whose keys are read.
type ReadKeysInput struct {
	Scope
	ClusterIDs []string `json:"clusterIds"`
	// Concurrency is how many are read at a time.
	Concurrency int `json:"concurrency"`
	// ReadBefore is how many keys of the same cluster were read by activities
	// before this one.
	ReadBefore int `json:"readBefore,omitempty"`
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
// reads only what is missing. A target without a key fails it, after the others
// were read: whether they have keys tells a backup that is not encrypted from
// one that is broken.
func (a *Activities) ReadKeys(ctx context.Context, in ReadKeysInput) (ReadKeysResult, error) {
	ctx, at, err := a.begin(ctx, in.Scope)
	if err != nil {
		return ReadKeysResult{}, err
	}
	defer at.end()
	reading := &keyReading{at: at, found: map[string]Key{}, without: map[string]error{}}
	for _, key := range at.currentNotes().Keys {
		reading.found[key.ClusterID] = key
	}
	if err := reading.readMissing(ctx, in); err != nil {
		return ReadKeysResult{}, at.failure(err)
	}
	if err := reading.failure(in); err != nil {
		return ReadKeysResult{}, err
	}
	result := ReadKeysResult{ReadIn: activity.GetInfo(ctx).WorkflowExecution.RunID}
	for _, id := range in.ClusterIDs {
		result.Keys = append(result.Keys, reading.found[id])
	}
	return result, nil
}

// keyReading is what one attempt of ReadKeys has found.
type keyReading struct {
	at *attempt

	mu      sync.Mutex
	found   map[string]Key
	without map[string]error // targets that have no key, and what says so
}

func (r *keyReading) readMissing(ctx context.Context, in ReadKeysInput) error {
	missing := slices.DeleteFunc(slices.Clone(in.ClusterIDs), func(id string) bool { _, ok := r.found[id]; return ok })
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(max(in.Concurrency, 1))
	for _, id := range missing {
		group.Go(func() error { return r.read(groupCtx, id) })
	}
	return group.Wait()
}

func (r *keyReading) read(ctx context.Context, id string) error {
	uuid, err := r.at.readKey(ctx, id, false)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case saysNoKey(err):
		r.without[id] = err
	case err != nil:
		return err
	default:
		key := Key{ClusterID: id, KeyUUID: uuid, ReadAt: now()}
		r.found[id] = key
		r.at.note(func(n *notes) { n.FailingSince = time.Time{}; n.Keys = append(slices.Clip(n.Keys), key) })
	}
	return nil
}

// saysNoKey tells the answers that a target without an encrypted backup gives.
func saysNoKey(err error) bool {
	apiError, ok := opsmanager.AsError(err)
	return ok && (apiError.Kind == opsmanager.EncryptionOff || apiError.ErrorCode == codeNoBackup)
}

// failure is that of the first target without a key, if there is one.
func (r *keyReading) failure(in ReadKeysInput) error {
	for _, id := range in.ClusterIDs {
		err, found := r.without[id]
		if !found {
			continue
		}
		apiError, _ := opsmanager.AsError(err)
		details := r.at.failureDetails(apiError)
		details.KeysRead = in.ReadBefore + len(r.found)
		m := meaningOf(apiError)
		text := fmt.Sprintf("%s (%d of %d targets have no key)", message(apiError, m), len(r.without), len(in.ClusterIDs))
		return temporal.NewApplicationErrorWithOptions(text, m.errorType, temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{details}})
	}
	return nil
}

// now is the time as records show it: UTC, to the millisecond.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
