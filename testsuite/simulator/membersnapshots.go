package simulator

import (
	"slices"
	"time"
)

// MemberSnapshot says which snapshot to take of a deployment's cluster. The zero
// value is a completed one of now, from a secondary of each replica set, with the
// keys that these members use.
type MemberSnapshot struct {
	// From are names of processes that it is taken from; of the other replica sets,
	// the last member that is up, and no primary or arbiter.
	From []string `json:"from,omitempty"`
	// Created is when it was begun; zero means now.
	Created time.Time `json:"created,omitzero"`
	// Expires is when it will be gone; zero means never.
	Expires time.Time `json:"expires,omitzero"`
	// Running: it is not complete yet. See CompleteSnapshot.
	Running bool `json:"running,omitempty"`
	// WithoutMachineID and WithoutKeyID leave these fields out of all parts.
	WithoutMachineID bool `json:"withoutMachineId,omitempty"`
	WithoutKeyID     bool `json:"withoutKeyId,omitempty"`
	// Unencrypted parts say encryptionEnabled false and name no key.
	Unencrypted bool `json:"unencrypted,omitempty"`
	// WithoutShards are the names of replica sets that are missing.
	WithoutShards []string `json:"withoutShards,omitempty"`
}

// TakeMemberSnapshot takes a snapshot of a cluster of the deployment; of a sharded
// cluster by its own id, with a part for each shard and the config server.
func (d *Deployment) TakeMemberSnapshot(clusterID string, o MemberSnapshot) (taken Snapshot) {
	d.locked(func(record *deploymentRecord) { taken = d.s.takeMemberSnapshot(record, clusterID, o) })
	return taken
}

// CompleteSnapshot completes a running snapshot. Its keys stay those that it was
// begun with.
func (d *Deployment) CompleteSnapshot(id string) {
	d.locked(func(*deploymentRecord) {
		for _, of := range d.s.data.Snapshots {
			for _, one := range of {
				if one.ID == id {
					one.Running = false
					for i := range one.Parts {
						one.Parts[i].Completed = d.s.now()
					}
					return
				}
			}
		}
		panic("simulator: there is no snapshot " + id)
	})
}

func (s *Simulator) takeMemberSnapshot(d *deploymentRecord, clusterID string, o MemberSnapshot) Snapshot {
	cluster := s.mustCluster(clusterID)
	if !cluster.Automated {
		panic("simulator: cluster " + clusterID + " is no part of the deployment")
	}
	if o.Created.IsZero() {
		o.Created = s.now()
	}
	taken := Snapshot{ClusterID: clusterID, Created: o.Created, Expires: o.Expires, Running: o.Running}
	for _, part := range s.componentsOf(cluster) {
		if slices.Contains(o.WithoutShards, part.ReplicaSetName) {
			taken.MissingShards = append(taken.MissingShards, part.ReplicaSetName)
			continue
		}
		from := d.snapshotMember(part.ReplicaSetName, o.From)
		made := SnapshotPart{
			ClusterID: part.ID, TypeName: part.TypeName, ReplicaSetName: part.ReplicaSetName, FCV: "8.0",
			MachineID: from.host(), EncryptionEnabled: new(!o.Unencrypted), MasterKeyUUID: from.key(),
		}
		if !o.Running {
			made.Completed = o.Created
		}
		if o.WithoutMachineID || d.Conduct.WithoutMachineID {
			made.MachineID = ""
		}
		if o.WithoutKeyID || o.Unencrypted || d.Conduct.WithoutKeyID {
			made.MasterKeyUUID = ""
		}
		taken.Parts = append(taken.Parts, made)
	}
	return s.addSnapshot(taken)
}

func (d *deploymentRecord) snapshotMember(replicaSet string, named []string) *member {
	var chosen *member
	for _, m := range d.Members {
		switch {
		case m.ReplicaSet != replicaSet || m.Mongos:
		case slices.Contains(named, m.Name):
			return m
		case chosen == nil || (!m.Arbiter && !m.Primary && !m.isDown()):
			chosen = m
		}
	}
	return chosen
}

// scheduledKept is how many scheduled snapshots of a cluster are kept: a simulator
// may run for weeks.
const scheduledKept = 48

// takeScheduledSnapshots takes one snapshot of each cluster, and removes those that
// have expired.
func (s *Simulator) takeScheduledSnapshots(d *deploymentRecord, at time.Time) {
	every := d.Options.SnapshotEvery
	for _, record := range s.data.clustersOf(d.Options.ProjectID) {
		if !record.Automated || !record.IsTopLevel() {
			continue
		}
		s.takeMemberSnapshot(d, record.ID, MemberSnapshot{Created: at, Expires: at.Add(scheduledKept * every)})
		s.data.Snapshots[record.ID] = slices.DeleteFunc(s.data.Snapshots[record.ID], func(one *Snapshot) bool {
			return one.endsBefore(at)
		})
	}
	// A simulator that was stopped for a while takes the latest one that it missed.
	d.NextShot = at.Add(every)
	if missed := s.now().Sub(d.NextShot); missed > 0 {
		d.NextShot = d.NextShot.Add(missed.Truncate(every))
	}
}

func (s *Snapshot) endsBefore(at time.Time) bool {
	return !s.DoNotDelete && !s.Expires.IsZero() && s.Expires.Before(at)
}

// Snapshots gives the snapshots of a cluster that have not expired, the oldest first.
func (d *Deployment) Snapshots(clusterID string) (snapshots []Snapshot) {
	d.locked(func(*deploymentRecord) {
		for _, one := range d.s.data.Snapshots[clusterID] {
			copied := *one
			copied.Parts = slices.Clone(one.Parts)
			snapshots = append(snapshots, copied)
		}
	})
	slices.SortStableFunc(snapshots, func(a, b Snapshot) int { return a.Created.Compare(b.Created) })
	return snapshots
}
