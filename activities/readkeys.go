package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"keyturn/internal/kmipevidence"
	"keyturn/opsmanager"
)

// ReadKeysInput names the targets whose keys are read.
type ReadKeysInput struct {
	Scope
	// ClusterIDs are those of the targets.
	ClusterIDs []string `json:"clusterIds"`
	// Concurrency is how many are read at a time.
	Concurrency int `json:"concurrency"`
	// ReadBefore is how many keys of the same cluster were read by activities
	// before this one.
	ReadBefore int `json:"readBefore,omitempty"`
	// Earlier has the key before a PUT of an earlier rotation, by cluster ID, of
	// the targets that it may have changed: reading another key verifies them.
	Earlier map[string]string `json:"earlier,omitempty"`
}

// ReadKeysResult has the keys in the order of the input. In JSON, more than
// maxPlainKeys are compressed: Temporal takes 2 MiB as one payload, and 5,000
// keys with the longest ids would need more.
type ReadKeysResult struct {
	// Keys has one entry for each of ClusterIDs.
	Keys []Key `json:"keys"`
	// ReadIn is the run of the workflow that the keys were read in.
	ReadIn string `json:"readIn"`
}

// Key is the id of the master key of one target's backup, as read by a GET.
type Key struct {
	ClusterID string    `json:"clusterId"` // the target that has the key
	KeyUUID   string    `json:"keyUUID"`   // the key's ID
	ReadAt    time.Time `json:"readAt"`    // when it was read, in UTC
	// KMIP is what the KMIP server says about a key that replaced one of
	// ReadKeysInput.Earlier; nil = it was not asked.
	KMIP *kmipevidence.Evidence `json:"kmip,omitempty"`
}

// maxPlainKeys is how many keys a result has in readable form.
const maxPlainKeys = 100

// plainKeys is a ReadKeysResult without its methods, or its compressed form.
type plainKeys struct {
	Keys   []Key  `json:"keys,omitempty"`
	Packed []byte `json:"packedKeys,omitempty"`
	ReadIn string `json:"readIn"`
}

// MarshalJSON implements json.Marshaler.
func (r ReadKeysResult) MarshalJSON() ([]byte, error) {
	if len(r.Keys) <= maxPlainKeys {
		return json.Marshal(plainKeys{Keys: r.Keys, ReadIn: r.ReadIn})
	}
	packed, err := pack(r.Keys)
	if err != nil {
		return nil, err
	}
	return json.Marshal(plainKeys{Packed: packed, ReadIn: r.ReadIn})
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *ReadKeysResult) UnmarshalJSON(data []byte) error {
	var plain plainKeys
	if err := json.Unmarshal(data, &plain); err != nil {
		return err
	}
	*r = ReadKeysResult{Keys: plain.Keys, ReadIn: plain.ReadIn}
	if plain.Packed == nil {
		return nil
	}
	return unpack(plain.Packed, &r.Keys)
}

// ReadKeys reads the keys of all targets, changing nothing. Transient errors are
// retried within the attempt, each target's for RetryTimeout, so that one of
// them does not begin the whole reading again. Another attempt reads all of them
// again: what it gives was read after it started. A target without a key fails
// it, after the others were read: whether they have keys distinguishes a backup that is
// not encrypted from one that is broken.
func (a *Activities) ReadKeys(ctx context.Context, in ReadKeysInput) (ReadKeysResult, error) {
	ctx, at, err := a.startAttempt(ctx, in.Scope)
	if err != nil {
		return ReadKeysResult{}, err
	}
	defer at.finish()
	reading := &keyReading{at: at, found: map[string]Key{}, noKey: map[string]error{}}
	if err := reading.readAll(ctx, in); err != nil {
		return ReadKeysResult{}, at.failure(err)
	}
	if err := reading.failure(in); err != nil {
		return ReadKeysResult{}, err
	}
	result := ReadKeysResult{ReadIn: activity.GetInfo(ctx).WorkflowExecution.RunID}
	var replaced []string
	for _, id := range in.ClusterIDs {
		key := reading.found[id]
		result.Keys = append(result.Keys, key)
		if earlier := in.Earlier[id]; earlier != "" && earlier != key.KeyUUID {
			replaced = append(replaced, key.KeyUUID)
		}
	}
	slices.Sort(replaced)
	evidence, err := a.evidenceOfAll(ctx, at, slices.Compact(replaced))
	if err != nil {
		return ReadKeysResult{}, at.failure(err)
	}
	for i := range result.Keys {
		result.Keys[i].KMIP = evidence[result.Keys[i].KeyUUID]
	}
	return result, nil
}

// keyReading is what one attempt of ReadKeys has found.
type keyReading struct {
	at *attempt

	mu    sync.Mutex
	found map[string]Key
	noKey map[string]error // targets that have no key, and what says so
}

func (r *keyReading) readAll(ctx context.Context, in ReadKeysInput) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(max(in.Concurrency, 1))
	for _, id := range in.ClusterIDs {
		group.Go(func() error { return r.read(groupCtx, id) })
	}
	return group.Wait()
}

func (r *keyReading) read(ctx context.Context, id string) error {
	if ctx.Err() != nil {
		return errCanceled
	}
	var uuid string
	retries := r.at.newRetries()
	err := retries.transient(ctx, func() (err error) {
		uuid, err = r.at.readKey(ctx, retries, id, false)
		return err
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case hasNoKey(err):
		r.noKey[id] = err
	case err != nil:
		return err
	default:
		r.found[id] = Key{ClusterID: id, KeyUUID: uuid, ReadAt: r.at.timestamp()}
	}
	return nil
}

// hasNoKey reports the answers that a target without an encrypted backup gives.
func hasNoKey(err error) bool {
	apiError, ok := opsmanager.AsError(err)
	return ok && (apiError.Kind == opsmanager.EncryptionOff || apiError.ErrorCode == codeNoBackup)
}

// failure is that of the first target without a key, if there is one.
func (r *keyReading) failure(in ReadKeysInput) error {
	for _, id := range in.ClusterIDs {
		err, found := r.noKey[id]
		if !found {
			continue
		}
		apiError, _ := opsmanager.AsError(err)
		details := r.at.failureDetails(apiError)
		details.KeysRead = in.ReadBefore + len(r.found)
		m := classify(apiError)
		text := fmt.Sprintf("%s (%d of %d targets have no key)", message(apiError, m), len(r.noKey), len(in.ClusterIDs))
		return temporal.NewApplicationErrorWithOptions(text, string(m.errorType), temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{details}})
	}
	return nil
}
