package invariants

import (
	"errors"
	"fmt"
	"slices"

	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// CheckPromise returns an error that lists every violation of what a rotation of a
// project's deployment promises whatever happens to it, also where it has ended early:
// a PUT that changed other bytes than the times; a process that was given more than one
// time, or that got more than one new key; and a record that claims what was not done,
// or a key that no snapshot of its very process shows.
//
// Times that others have set are no violation, but keys that agents made for them are.
func CheckPromise(d *simulator.Deployment, records []workflows.ProcessRecord) error {
	c := promise{d: d, times: map[string][]string{}, keys: map[string][]simulator.MemberRotation{}}
	for _, put := range d.Puts() {
		for _, change := range put.Rotations {
			if !slices.Contains(c.times[change.Process], change.After) {
				c.times[change.Process] = append(c.times[change.Process], change.After)
			}
		}
	}
	for _, r := range d.Rotations("") {
		c.keys[r.Process] = append(c.keys[r.Process], r)
	}
	var violations []error
	for _, violation := range d.Violations() {
		violations = append(violations, errors.New(violation))
	}
	for _, process := range d.Processes() {
		for _, violation := range c.ofProcess(process.Name) {
			violations = append(violations, fmt.Errorf("%s: %s", process.Name, violation))
		}
	}
	for _, record := range records {
		for _, violation := range c.ofRecord(record) {
			violations = append(violations, fmt.Errorf("%s (%s): %s", record.Process, record.Status, violation))
		}
	}
	return errors.Join(violations...)
}

// promise has what the ledger says of each process.
type promise struct {
	d     *simulator.Deployment
	times map[string][]string // that PUTs had for it, whether or not they were applied
	keys  map[string][]simulator.MemberRotation
}

func (c promise) ofProcess(name string) (violations []string) {
	if n := len(c.times[name]); n > 1 {
		violations = append(violations, fmt.Sprintf("PUTs had %d times for it: %s", n, c.times[name]))
	}
	if n := len(c.keys[name]); n > 1 {
		violations = append(violations, fmt.Sprintf("it got %d new keys", n))
	}
	return violations
}

func (c promise) ofRecord(record workflows.ProcessRecord) (violations []string) {
	if !slices.ContainsFunc(c.d.Processes(), func(p simulator.Process) bool { return p.Name == record.Process }) {
		return []string{"Ops Manager has no such process"}
	}
	isVerified := record.Status == workflows.StatusVerified
	if !isVerified && (record.NewKeyUUID != "" || record.ProvenBy != "" || record.SnapshotID != "" || record.VerifiedAt != nil) {
		violations = append(violations, "the record has a proof")
	}
	if record.CarriedOver || record.Status != workflows.StatusRotated && !isVerified {
		return violations
	}
	violations = append(violations, CheckProcess(simulator.ProcessSummary{
		Name: record.Process, Key: c.d.Process(record.Process).Key, Rotations: c.keys[record.Process],
	}, record)...)
	if isVerified && !c.isShown(record) {
		violations = append(violations, fmt.Sprintf("no snapshot %q of it shows its new key %q", record.SnapshotID, record.NewKeyUUID))
	}
	return violations
}

// isShown reports whether the snapshot of a record was taken from its process and names
// its new key.
func (c promise) isShown(record workflows.ProcessRecord) bool {
	return slices.ContainsFunc(c.d.Snapshots(record.ClusterID), func(s simulator.Snapshot) bool {
		return s.ID == record.SnapshotID && slices.ContainsFunc(s.Parts, func(part simulator.SnapshotPart) bool {
			return part.MachineID == record.Host && part.MasterKeyUUID == record.NewKeyUUID
		})
	})
}
