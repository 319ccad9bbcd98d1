package activities

import (
	"context"
	"slices"
	"strings"
	"time"

	"keyturn/opsmanager"
)

// readSnapshots lists the snapshots of a cluster. One that has no backup has none.
// Transient errors are retried for RetryTimeout.
func (at *attempt) readSnapshots(ctx context.Context, clusterID string, parts int) (snapshots []opsmanager.Snapshot, err error) {
	r := at.newRetries()
	err = r.transient(ctx, func() error {
		return at.rereadOdd(ctx, r, isOdd, func() (err error) {
			snapshots, err = at.client.Snapshots(ctx, at.scope.ProjectID, clusterID, parts)
			return err
		})
	})
	if hasNoKey(err) {
		return nil, nil
	}
	return snapshots, err
}

// setKeys are the keys that the snapshots of one replica set name.
type setKeys struct {
	// parts are the ones that name a key, the newest first.
	parts []keyedPart
}

// keyedPart is a part of a snapshot that names a key.
type keyedPart struct {
	key, snapshot string
	host          string // as hostKey; "" = not said
	created       time.Time
}

// keysOfSets takes the keys out of snapshots, by replica set. A snapshot without a
// time counts as the oldest one.
func keysOfSets(snapshots []opsmanager.Snapshot) map[string]*setKeys {
	sets := map[string]*setKeys{}
	for _, s := range snapshots {
		for _, part := range s.Parts {
			if part.KeyUUID == "" || part.ReplicaSetName == "" {
				continue
			}
			if sets[part.ReplicaSetName] == nil {
				sets[part.ReplicaSetName] = &setKeys{}
			}
			set := sets[part.ReplicaSetName]
			set.parts = append(set.parts, keyedPart{part.KeyUUID, s.ID, hostKey(part.MachineID), s.Created})
		}
	}
	for _, set := range sets {
		slices.SortStableFunc(set.parts, func(a, b keyedPart) int { return b.created.Compare(a.created) })
	}
	return sets
}

// newest are the keys of the newest snapshots, each once.
func (k *setKeys) newest(limit int) (uuids []string) {
	for _, part := range k.parts {
		if len(uuids) == limit {
			break
		}
		if !slices.Contains(uuids, part.key) {
			uuids = append(uuids, part.key)
		}
	}
	return uuids
}

// rotationTakes is more than an agent takes to carry out a rotation that was
// published.
const rotationTakes = 24 * time.Hour

// showsLastKey reports whether a snapshot of a member that was begun at that time
// names the key that the member had at the end. One from before an earlier rotation
// does not, and makes a later key no proof: it may be that rotation's.
func showsLastKey(created time.Time, previousRotateAt string, lastRestart time.Time) bool {
	previous, ok := opsmanager.ParseRotationTime(previousRotateAt)
	switch {
	case previousRotateAt == "":
		return true
	case !lastRestart.IsZero() && created.After(lastRestart):
		return true
	default:
		return ok && created.After(previous.Add(rotationTakes))
	}
}

// ofHost is the newest part of a host; nil = there is none.
func (k *setKeys) ofHost(host string) *keyedPart {
	at := slices.IndexFunc(k.parts, func(part keyedPart) bool { return part.host != "" && strings.EqualFold(part.host, host) })
	if at < 0 {
		return nil
	}
	return &k.parts[at]
}
