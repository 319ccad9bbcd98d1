package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"keyturn/internal/ellipsis"
	"keyturn/opsmanager"
)

const (
	// parallelKeyReads is how many clusters of a batch are read at a time.
	parallelKeyReads = 8
	// maxKeysSize bounds the records in one result of ListClusterKeys, in bytes.
	maxKeysSize = 400 << 10
	// evidenceSize is what KMIP evidence may add to a record, in bytes: which keys
	// have room must be known before they are asked about. Only long names of keys
	// take more.
	evidenceSize = 600
)

// ListClusterKeysInput names clusters of one project.
type ListClusterKeysInput struct {
	Scope
	// Clusters are from one ListKeyClustersResult.
	Clusters []KeyCluster `json:"clusters"`
	// AfterKey continues within the first cluster, after this key.
	AfterKey string `json:"afterKey,omitempty"`
}

// ListClusterKeysResult has a record for each key of the clusters. A key that
// several clusters use has one record.
type ListClusterKeysResult struct {
	// Keys take up to about 400 KiB as JSON.
	Keys []KeyRecord `json:"keys"`
	// Size is what Keys take as JSON, in bytes.
	Size int `json:"size"`
	// Done is how many of the clusters are reported as a whole; the next one is to
	// be continued after AfterKey.
	Done     int    `json:"done"`
	AfterKey string `json:"afterKey,omitempty"`
	// Snapshots is the number of snapshots of the Done clusters.
	Snapshots int `json:"snapshots"`
	// RestoreJobs is the number of their restore jobs.
	RestoreJobs int `json:"restoreJobs"`
	// Reasons why the records of these clusters are not complete.
	Reasons []IncompleteReason `json:"reasons"`
}

// ListClusterKeys reads the keys, snapshots and restore jobs of some clusters and
// returns what they say about each key: its result does not grow with the number
// of snapshots. What cannot be read is a reason why the result is not complete,
// and does not fail it. Transient errors are retried within the attempt.
func (a *Activities) ListClusterKeys(ctx context.Context, in ListClusterKeysInput) (ListClusterKeysResult, error) {
	ctx, at, err := a.startAttempt(ctx, in.Scope)
	if err != nil {
		return ListClusterKeysResult{}, err
	}
	defer at.finish()
	read := make([]*clusterKeys, len(in.Clusters))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallelKeyReads)
	for i, cluster := range in.Clusters {
		group.Go(func() error {
			read[i] = &clusterKeys{at: at, cluster: cluster, keys: map[string]*keyFacts{}, current: map[string]bool{}}
			return read[i].read(groupCtx)
		})
	}
	if err := group.Wait(); err != nil {
		return ListClusterKeysResult{}, at.failure(err)
	}
	result := resultOfClusters(read, in.AfterKey, a.KMIP[in.Connection] != nil)
	if err := a.addEvidence(ctx, at, &result); err != nil {
		return ListClusterKeysResult{}, at.failure(err)
	}
	return result, nil
}

// addEvidence adds what the KMIP server says about each key of the result.
func (a *Activities) addEvidence(ctx context.Context, at *attempt, result *ListClusterKeysResult) error {
	var uuids []string
	for _, record := range result.Keys {
		uuids = append(uuids, record.KeyUUID)
	}
	found, err := a.evidenceOfAll(ctx, at, uuids)
	if err != nil || found == nil {
		return err
	}
	result.Size = 0
	for i := range result.Keys {
		result.Keys[i].KMIP = found[result.Keys[i].KeyUUID]
		result.Size += sizeOf(result.Keys[i])
	}
	return nil
}

// resultOfClusters fills one result with as many clusters as there is room for.
func resultOfClusters(read []*clusterKeys, afterKey string, withEvidence bool) ListClusterKeysResult {
	result := ListClusterKeysResult{Keys: []KeyRecord{}, Reasons: []IncompleteReason{}}
	at := map[string]int{}
	for _, c := range read {
		for _, uuid := range sortedKeys(c.keys) {
			if uuid <= afterKey {
				continue
			}
			record := c.record(uuid)
			size := sizeOf(record)
			if withEvidence {
				size += evidenceSize
			}
			if result.Size+size > maxKeysSize && len(result.Keys) > 0 {
				return result
			}
			result.Size += size
			if i, found := at[uuid]; found {
				result.Keys[i] = MergeKeyRecords(result.Keys[i], record)
			} else {
				at[uuid] = len(result.Keys)
				result.Keys = append(result.Keys, record)
			}
			result.AfterKey = uuid
		}
		result.Snapshots += c.snapshots
		result.RestoreJobs += c.restoreJobs
		result.Reasons = append(result.Reasons, c.reasons()...)
		result.Done++
		result.AfterKey, afterKey = "", ""
	}
	return result
}

func sizeOf(record KeyRecord) int {
	encoded, _ := json.Marshal(record) // plain strings, numbers and times
	return len(encoded)
}

// clusterKeys is what one cluster's snapshots, restore jobs and components say
// about keys.
type clusterKeys struct {
	at      *attempt
	cluster KeyCluster
	keys    map[string]*keyFacts
	// current are the components whose key Ops Manager shows, by id and by replica
	// set.
	current     map[string]bool
	snapshots   int
	restoreJobs int
	// unread: snapshots or restore jobs that may name any key were not read.
	unread   bool
	reasonOf map[IncompleteCode]*IncompleteReason
	more     map[IncompleteCode]int
}

// keyFacts are the facts about one key of the cluster.
type keyFacts struct {
	inForce     bool
	snapshots   int
	oldest      *time.Time
	newest      *time.Time
	end         *time.Time
	noEnd       bool // a snapshot or a restore job that names the key has no known end
	restoreJobs int
	replicaSets []string
	hosts       []string
}

func (c *clusterKeys) fact(uuid string) *keyFacts {
	if c.keys[uuid] == nil {
		c.keys[uuid] = &keyFacts{}
	}
	return c.keys[uuid]
}

// read fails only where the attempt is interrupted.
func (c *clusterKeys) read(ctx context.Context) error {
	for _, part := range c.cluster.Parts {
		if c.cluster.NoBackup {
			break
		}
		if err := c.readCurrent(ctx, part); err != nil {
			return err
		}
	}
	snapshots, err := readList(ctx, c, "snapshots", func() ([]opsmanager.Snapshot, error) {
		return c.at.client.Snapshots(ctx, c.at.scope.ProjectID, c.cluster.ClusterID, len(c.cluster.Parts))
	})
	if err != nil {
		return err
	}
	keysOf := map[string][]string{} // by snapshot
	for _, s := range snapshots {
		keysOf[s.ID] = c.addSnapshot(s)
	}
	c.addNewest(snapshots)
	if c.cluster.NoBackup && len(snapshots) == 0 {
		return nil
	}
	jobs, err := readList(ctx, c, "restore jobs", func() ([]opsmanager.RestoreJob, error) {
		return c.at.client.RestoreJobs(ctx, c.at.scope.ProjectID, c.cluster.ClusterID)
	})
	if err != nil {
		return err
	}
	for _, job := range jobs {
		c.addRestoreJob(job, keysOf[job.SnapshotID])
	}
	return nil
}

// interruption is err where it ends the attempt, and not only this reading.
func (c *clusterKeys) interruption(ctx context.Context, err error) error {
	if err != nil && (c.at.isInterruption(err) || ctx.Err() != nil) {
		return err
	}
	return nil
}

// readCurrent reads the key that Ops Manager shows for a component.
func (c *clusterKeys) readCurrent(ctx context.Context, part KeyPart) error {
	var uuid string
	retries := c.at.newRetries()
	err := retries.transient(ctx, func() (err error) {
		uuid, err = c.at.readKey(ctx, retries, part.ClusterID, false)
		return err
	})
	if interrupted := c.interruption(ctx, err); interrupted != nil {
		return interrupted
	}
	switch {
	case err == nil:
		facts := c.fact(uuid)
		facts.inForce = facts.inForce || !c.cluster.Inactive
		facts.addNames(part.ReplicaSet, "")
		c.current[part.ClusterID] = true
		if part.ReplicaSet != "" {
			c.current[part.ReplicaSet] = true
		}
	case hasNoKey(err) && part.Encrypted:
		c.incomplete(IncompleteNoKeyID, "the backup of %s is encrypted, and Ops Manager shows no key of it: %v", nameOf(part), err)
	case !hasNoKey(err):
		c.incomplete(IncompleteUnreadable, "the key of %s cannot be read: %s", nameOf(part), textOf(err))
	}
	return nil
}

func nameOf(part KeyPart) string {
	if part.ReplicaSet == "" {
		return part.ClusterID
	}
	return part.ReplicaSet
}

// textOf is an error with what to do about it.
func textOf(err error) string {
	if apiError, ok := opsmanager.AsError(err); ok {
		return message(apiError, classify(apiError))
	}
	return err.Error()
}

// readList reads a list of the cluster; one that cannot be read is a reason. A
// cluster without a backup has none.
func readList[T any](ctx context.Context, c *clusterKeys, what string, read func() ([]T, error)) (entries []T, err error) {
	err = c.at.retryTransient(ctx, func() (err error) {
		entries, err = read()
		return err
	})
	if interrupted := c.interruption(ctx, err); interrupted != nil {
		return nil, interrupted
	}
	if err != nil && !hasNoKey(err) {
		c.unread = true
		c.incomplete(IncompleteUnreadable, "the %s cannot be read: %s", what, textOf(err))
	}
	return entries, nil
}

// addSnapshot adds what a snapshot says, and returns the keys that it names.
func (c *clusterKeys) addSnapshot(s opsmanager.Snapshot) (named []string) {
	c.snapshots++
	for _, part := range s.Parts {
		switch {
		case part.KeyUUID != "":
			c.fact(part.KeyUUID).addNames(part.ReplicaSetName, part.MachineID)
			named = append(named, part.KeyUUID)
		case part.LacksKeyID():
			c.unread = true
			c.incomplete(IncompleteNoKeyID, "snapshot %s is or may be encrypted, and names no key for %s", describeSnapshot(s), orUnnamed(part.ReplicaSetName))
		}
	}
	slices.Sort(named)
	named = slices.Compact(named)
	for _, uuid := range named {
		c.fact(uuid).addSnapshot(s)
	}
	switch {
	case s.Unreadable:
		c.unread = true
		c.incomplete(IncompleteUnreadable, "snapshot %s cannot be read", describeSnapshot(s))
	case len(s.Parts) == 0 && !s.Incomplete:
		c.unread = true
		c.incomplete(IncompleteNoKeyID, "snapshot %s names no part", describeSnapshot(s))
	}
	if len(s.MissingShards) > 0 {
		c.incomplete(IncompleteMissingShards, "snapshot %s lacks shard %s", describeSnapshot(s), strings.Join(s.MissingShards, ", "))
	}
	return named
}

func describeSnapshot(s opsmanager.Snapshot) string {
	text := orUnnamed(s.ID)
	if !s.Created.IsZero() {
		text += " of " + s.Created.Format(time.RFC3339)
	}
	return text
}

func orUnnamed(name string) string {
	if name == "" {
		return "without a name"
	}
	return name
}

func (f *keyFacts) addNames(replicaSet, host string) {
	if replicaSet != "" && !slices.Contains(f.replicaSets, replicaSet) {
		f.replicaSets = append(f.replicaSets, replicaSet)
	}
	if host != "" && !slices.Contains(f.hosts, host) {
		f.hosts = append(f.hosts, host)
	}
}

func (f *keyFacts) addSnapshot(s opsmanager.Snapshot) {
	f.snapshots++
	if !s.Created.IsZero() {
		f.oldest = extreme(f.oldest, &s.Created, time.Time.Before)
		f.newest = extreme(f.newest, &s.Created, time.Time.After)
	}
	if end, hasEnd := s.End(); hasEnd {
		f.end = extreme(f.end, &end, time.Time.After)
	} else {
		f.noEnd = true
	}
}

// addNewest takes the key of the newest snapshot of each member, or of a replica
// set whose snapshots name no member, as the one in force, where the key is the
// deployment's own: Ops Manager shows the key of older backups only.
func (c *clusterKeys) addNewest(snapshots []opsmanager.Snapshot) {
	type member struct{ cluster, replicaSet, host string }
	type newest struct {
		at   time.Time
		keys []string
	}
	newestOf := map[member]newest{}
	for _, s := range snapshots {
		for _, part := range s.Parts {
			if part.KeyUUID == "" || s.Created.IsZero() || !c.isDeploymentKey(part) {
				continue
			}
			of := member{part.ClusterID, part.ReplicaSetName, part.MachineID}
			switch known := newestOf[of]; {
			case s.Created.After(known.at):
				newestOf[of] = newest{s.Created, []string{part.KeyUUID}}
			case s.Created.Equal(known.at):
				newestOf[of] = newest{s.Created, append(known.keys, part.KeyUUID)}
			}
		}
	}
	for _, n := range newestOf {
		for _, uuid := range n.keys {
			c.fact(uuid).inForce = true
		}
	}
}

// isDeploymentKey reports whether a part is encrypted with the deployment's own
// key: from FCV 4.2 on, or where Ops Manager shows no key of the component.
func (c *clusterKeys) isDeploymentKey(part opsmanager.SnapshotPart) bool {
	shown := c.current[part.ClusterID] || c.current[part.ReplicaSetName]
	return !shown || fcvAtLeast(part.FCV, 4, 2)
}

func fcvAtLeast(fcv string, major, minor int) bool {
	first, rest, _ := strings.Cut(fcv, ".")
	second, _, _ := strings.Cut(rest, ".")
	a, err := strconv.Atoi(first)
	b, err2 := strconv.Atoi(second)
	if errors.Join(err, err2) != nil {
		return false
	}
	return a > major || a == major && b >= minor
}

// addRestoreJob adds a restore job, which uses the key that it names and those of
// its snapshot.
func (c *clusterKeys) addRestoreJob(job opsmanager.RestoreJob, ofSnapshot []string) {
	c.restoreJobs++
	uses := slices.Clone(ofSnapshot)
	if job.KeyUUID != "" && !slices.Contains(uses, job.KeyUUID) {
		uses = append(uses, job.KeyUUID)
	}
	mayBeEncrypted := job.EncryptionEnabled == nil || *job.EncryptionEnabled
	if len(uses) == 0 && mayBeEncrypted && !job.HasEnded() {
		c.unread = true
		c.incomplete(IncompleteNoKeyID, "restore job %s (%s) is or may be encrypted, and names no key", orUnnamed(job.ID), orUnnamed(job.StatusName))
	}
	for _, uuid := range uses {
		facts := c.fact(uuid)
		facts.restoreJobs++
		facts.noEnd = facts.noEnd || !job.HasEnded()
	}
}

// record is what the cluster says about a key.
func (c *clusterKeys) record(uuid string) KeyRecord {
	f := c.keys[uuid]
	record := KeyRecord{
		KeyUUID: uuid, Verdict: f.verdict(c.unread), ProjectID: c.at.scope.ProjectID,
		ClusterIDs: []string{c.cluster.ClusterID}, ClusterNames: []string{},
		Snapshots: f.snapshots, OldestSnapshot: f.oldest, NewestSnapshot: f.newest, RestoreJobs: f.restoreJobs,
	}
	if c.cluster.ClusterName != "" {
		record.ClusterNames = append(record.ClusterNames, c.cluster.ClusterName)
	}
	if record.Verdict == VerdictNeeded && !f.noEnd {
		record.NeededUntil = f.end // nil where only restore jobs name the key
	}
	var moreSets, moreHosts bool
	record.ReplicaSets, moreSets = firstNames(f.replicaSets)
	record.Hosts, moreHosts = firstNames(f.hosts)
	record.NamesLeftOut = moreSets || moreHosts
	return record
}

func (f *keyFacts) verdict(unread bool) Verdict {
	switch {
	case f.inForce:
		return VerdictCurrent
	case f.snapshots > 0 || f.restoreJobs > 0:
		return VerdictNeeded
	case unread:
		return VerdictUnknown
	default:
		return VerdictNamedByNoSnapshot
	}
}

// incomplete notes a reason; of several with one code, the first is reported and the
// others are counted.
func (c *clusterKeys) incomplete(code IncompleteCode, format string, args ...any) {
	if c.reasonOf == nil {
		c.reasonOf, c.more = map[IncompleteCode]*IncompleteReason{}, map[IncompleteCode]int{}
	}
	if c.reasonOf[code] != nil {
		c.more[code]++
		return
	}
	c.reasonOf[code] = &IncompleteReason{
		Reason: code, ProjectID: c.at.scope.ProjectID, ClusterID: c.cluster.ClusterID, ClusterName: c.cluster.ClusterName,
		Message: ellipsis.Cut(fmt.Sprintf(format, args...), maxReasonText),
	}
}

func (c *clusterKeys) reasons() (all []IncompleteReason) {
	for _, code := range []IncompleteCode{IncompleteUnreadable, IncompleteNoKeyID, IncompleteMissingShards} {
		reason := c.reasonOf[code]
		if reason == nil {
			continue
		}
		if more := c.more[code]; more > 0 {
			reason.Message += fmt.Sprintf(" (and %d more of this kind in this cluster)", more)
		}
		all = append(all, *reason)
	}
	return all
}
