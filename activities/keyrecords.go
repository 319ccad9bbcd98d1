package activities

import (
	"slices"
	"time"

	"keyturn/internal/kmipevidence"
)

// Verdict says what is known about the need for a master key. No verdict says
// that a key may be destroyed: keys of members that were never snapshotted, and
// other uses of the KMIP server, are not known to Ops Manager.
type Verdict string

// Verdicts on a key.
const (
	// VerdictCurrent: the key is in force: Ops Manager shows it as a backup's key,
	// or the newest snapshot of a member is encrypted with it.
	VerdictCurrent Verdict = "current"
	// VerdictNeeded: a snapshot or a restore job names it.
	VerdictNeeded Verdict = "needed"
	// VerdictNamedByNoSnapshot: Ops Manager knows the key, it is not in force, and
	// every snapshot and restore job was read and none names it.
	VerdictNamedByNoSnapshot Verdict = "namedByNoSnapshot"
	// VerdictUnknown: the key is not in force, and snapshots or restore jobs that
	// may name it could not be read.
	VerdictUnknown Verdict = "unknown"
)

// Verdicts lists the verdicts, the most binding one first. Of two verdicts on one
// key, the first one of these holds.
var Verdicts = []Verdict{VerdictCurrent, VerdictNeeded, VerdictUnknown, VerdictNamedByNoSnapshot}

// rank is a verdict's place in Verdicts; one that is not in it ranks as
// VerdictUnknown.
func (v Verdict) rank() int {
	if at := slices.Index(Verdicts, v); at >= 0 {
		return at
	}
	return slices.Index(Verdicts, VerdictUnknown)
}

// maxNamesListed bounds each list of names in a KeyRecord.
const maxNamesListed = 50

// KeyRecord is what is known about one master key in one project. Times are in
// UTC.
type KeyRecord struct {
	// KeyUUID is the ID of the key in the KMIP server.
	KeyUUID string `json:"keyUUID"`
	// Verdict says whether the key is still needed.
	Verdict Verdict `json:"verdict"`
	// NeededUntil is set only where Verdict is VerdictNeeded: when the last of the
	// snapshots that name the key expires. It may be in the past: then Ops Manager
	// has not deleted that snapshot yet. nil = no end is known.
	NeededUntil *time.Time `json:"neededUntil"`
	// Snapshots is how many snapshots name the key. OldestSnapshot and
	// NewestSnapshot are the times of the first and the last of them.
	Snapshots      int        `json:"snapshots"`
	OldestSnapshot *time.Time `json:"oldestSnapshot"`
	NewestSnapshot *time.Time `json:"newestSnapshot"`
	// ProjectID is the project whose clusters use the key. A key that several
	// projects use has a record in each.
	ProjectID string `json:"projectId"`
	// ClusterIDs are top-level clusters, ClusterNames their display names. Of
	// these and of the lists below, a record has 50 entries at most.
	ClusterIDs   []string `json:"clusterIds"`
	ClusterNames []string `json:"clusterNames"`
	// ReplicaSets are those whose backup or snapshots have the key, by name.
	ReplicaSets []string `json:"replicaSets"`
	// Hosts are the members (host:port) whose snapshots name the key.
	Hosts []string `json:"hosts"`
	// NamesLeftOut: there are more names than the lists above have room for.
	NamesLeftOut bool `json:"namesLeftOut,omitempty"`
	// RestoreJobs is how many restore jobs use the key.
	RestoreJobs int `json:"restoreJobs"`
	// LastRotation is when the key came into force; nil = not known. Nothing sets it
	// yet: Ops Manager does not say it.
	LastRotation *time.Time `json:"lastRotation"`
	// KMIP is what the KMIP server says about the key; nil = it was not asked.
	KMIP *kmipevidence.Evidence `json:"kmip"`
}

// MergeKeyRecords returns what two records say together about one key of one
// project, each from other clusters. The order does not matter.
func MergeKeyRecords(a, b KeyRecord) KeyRecord {
	merged := a
	merged.Verdict = Verdicts[min(a.Verdict.rank(), b.Verdict.rank())]
	merged.NeededUntil = laterEnd(a, b, merged.Verdict)
	merged.Snapshots += b.Snapshots
	merged.RestoreJobs += b.RestoreJobs
	merged.OldestSnapshot = extreme(a.OldestSnapshot, b.OldestSnapshot, time.Time.Before)
	merged.NewestSnapshot = extreme(a.NewestSnapshot, b.NewestSnapshot, time.Time.After)
	merged.LastRotation = extreme(a.LastRotation, b.LastRotation, time.Time.After)
	merged.KMIP = betterEvidence(a.KMIP, b.KMIP)
	merged.NamesLeftOut = a.NamesLeftOut || b.NamesLeftOut
	for _, lists := range []struct {
		into *[]string
		more []string
	}{
		{&merged.ClusterIDs, b.ClusterIDs}, {&merged.ClusterNames, b.ClusterNames},
		{&merged.ReplicaSets, b.ReplicaSets}, {&merged.Hosts, b.Hosts},
	} {
		var leftOut bool
		*lists.into, leftOut = firstNames(slices.Concat(*lists.into, lists.more))
		merged.NamesLeftOut = merged.NamesLeftOut || leftOut
	}
	return merged
}

// laterEnd is the later end of two records of a key that is needed.
func laterEnd(a, b KeyRecord, verdict Verdict) *time.Time {
	switch {
	case verdict != VerdictNeeded:
		return nil
	case a.Verdict != VerdictNeeded:
		return b.NeededUntil
	case b.Verdict != VerdictNeeded:
		return a.NeededUntil
	case a.NeededUntil == nil || b.NeededUntil == nil:
		return nil
	default:
		return extreme(a.NeededUntil, b.NeededUntil, time.Time.After)
	}
}

// betterEvidence is the later one of two answers; no answer is worse than any.
func betterEvidence(a, b *kmipevidence.Evidence) *kmipevidence.Evidence {
	answered := func(e *kmipevidence.Evidence) bool { return e.Outcome != kmipevidence.OutcomeUnreachable }
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case answered(a) != answered(b):
		if answered(a) {
			return a
		}
		return b
	case a.AskedAt.Before(b.AskedAt):
		return b
	default:
		return a
	}
}

// extreme is whichever of two times goes before the other; nil is no time.
func extreme(a, b *time.Time, goesBefore func(a, b time.Time) bool) *time.Time {
	if a == nil || b != nil && goesBefore(*b, *a) {
		return b
	}
	return a
}

// firstNames sorts names, each once, and keeps as many as a record has room for.
func firstNames(names []string) (kept []string, leftOut bool) {
	kept = slices.Compact(slices.Sorted(slices.Values(names)))
	if len(kept) > maxNamesListed {
		return kept[:maxNamesListed], true
	}
	if kept == nil {
		kept = []string{} // in JSON: a list
	}
	return kept, false
}

// IncompleteCode says why a listing of keys is not complete.
type IncompleteCode string

// Reasons why a listing of keys is not complete.
const (
	// IncompleteUnreadable: a project, or a list of it, could not be read.
	IncompleteUnreadable IncompleteCode = "unreadable"
	// IncompleteNoKeyID: something is or may be encrypted, and names no key.
	IncompleteNoKeyID IncompleteCode = "noKeyId"
	// IncompleteMissingShards: a snapshot lacks a shard.
	IncompleteMissingShards IncompleteCode = "missingShards"
	// IncompleteNotListed: Ops Manager has a backup of a cluster that it does not
	// list, or lists a shard without its cluster.
	IncompleteNotListed IncompleteCode = "notListed"
	// IncompleteStopped: the listing ended before it had read everything.
	IncompleteStopped IncompleteCode = "stopped"
)

// IncompleteReason is one reason why a listing of keys is not complete.
type IncompleteReason struct {
	Reason      IncompleteCode `json:"reason"`                // the kind of reason
	ProjectID   string         `json:"projectId,omitempty"`   // the project that it is about
	ClusterID   string         `json:"clusterId,omitempty"`   // the cluster, if it is about one
	ClusterName string         `json:"clusterName,omitempty"` // that cluster's display name, up to 100 characters
	Message     string         `json:"message"`               // what is missing and why, up to 500 characters
}

// maxReasonText bounds the message of an IncompleteReason, in characters.
const maxReasonText = 500
