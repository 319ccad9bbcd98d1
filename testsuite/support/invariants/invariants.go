// Package invariants checks the records of rotations against the ledger of the
// simulated Ops Manager. Tests, the sandbox and the benchmark use the same checks.
package invariants

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// CheckRecords returns an error that lists every violation: a PUT that named a
// sharded cluster as a whole, a target with more than one applied PUT, and a
// verified record that differs from the ledger.
func CheckRecords(ledger simulator.Ledger, records []workflows.TargetRecord) error {
	var violations []error
	if puts := ledger.PutsOnParents(); len(puts) > 0 {
		violations = append(violations, fmt.Errorf("%d PUTs named a sharded cluster as a whole", len(puts)))
	}
	for _, record := range records {
		for _, violation := range CheckRecord(ledger.Applied(record.ClusterID), record) {
			violations = append(violations, fmt.Errorf("%s (%s): %s", record.Name, record.Status, violation))
		}
	}
	return errors.Join(violations...)
}

// CheckRecord returns the violations of one record. applied are the PUTs that were
// applied to its target.
func CheckRecord(applied []simulator.Rotation, record workflows.TargetRecord) (violations []string) {
	add := func(format string, args ...any) { violations = append(violations, fmt.Sprintf(format, args...)) }
	switch {
	case len(applied) > 1:
		add("%d PUTs were applied, at most 1 is allowed", len(applied))
		return violations
	case record.Status != workflows.StatusVerified || record.CarriedOver:
		return nil
	case len(applied) == 0:
		add("no PUT was applied")
		return violations
	}
	if record.PreviousKeyUUID != applied[0].PreviousKey {
		add("the record has previous key %q, the ledger has %q", record.PreviousKeyUUID, applied[0].PreviousKey)
	}
	if record.NewKeyUUID != applied[0].NewKey {
		add("the record has new key %q, the ledger has %q", record.NewKeyUUID, applied[0].NewKey)
	}
	if record.RotatedAt == nil || record.VerifiedAt == nil {
		add("the record lacks the time of rotation or verification")
	}
	return violations
}

// CheckProcesses returns an error that lists every violation of a rotation of a
// deployment, with the records of all its processes, where the ledger has nothing
// else: a PUT that changed other bytes than the times; a process that has not exactly
// one new key, made for the time that its record has; and a record that differs from
// the ledger.
func CheckProcesses(deployment simulator.DeploymentSummary, records []workflows.ProcessRecord) error {
	var violations []error
	for _, violation := range deployment.Violations {
		violations = append(violations, errors.New(violation))
	}
	if deployment.Puts != deployment.PutsApplied {
		violations = append(violations, fmt.Errorf("%d of %d PUTs were applied", deployment.PutsApplied, deployment.Puts))
	}
	recorded := map[string]workflows.ProcessRecord{}
	for _, record := range records {
		recorded[record.Process] = record
	}
	for _, process := range deployment.Processes {
		if process.Key == "" { // a mongos
			continue
		}
		record, found := recorded[process.Name]
		delete(recorded, process.Name)
		if !found {
			violations = append(violations, fmt.Errorf("%s: it has no record", process.Name))
			continue
		}
		for _, violation := range CheckProcess(process, record) {
			violations = append(violations, fmt.Errorf("%s (%s): %s", record.Process, record.Status, violation))
		}
	}
	for _, record := range records {
		if _, left := recorded[record.Process]; left {
			violations = append(violations, fmt.Errorf("%s: Ops Manager has no such process", record.Process))
		}
	}
	return errors.Join(violations...)
}

// CheckProcess returns the violations of one record of CheckProcesses.
func CheckProcess(process simulator.ProcessSummary, record workflows.ProcessRecord) (violations []string) {
	add := func(format string, args ...any) { violations = append(violations, fmt.Sprintf(format, args...)) }
	if len(process.Rotations) != 1 {
		add("it got %d new keys, expected 1", len(process.Rotations))
		return violations
	}
	rotated := process.Rotations[0]
	if process.Key != rotated.NewKey {
		add("its current key is %q, the rotation made %q", process.Key, rotated.NewKey)
	}
	switch record.Status {
	case workflows.StatusVerified:
		if record.NewKeyUUID != rotated.NewKey {
			add("the record has new key %q, the ledger has %q", record.NewKeyUUID, rotated.NewKey)
		}
		if record.VerifiedAt == nil || record.ProvenBy == "" || record.SnapshotID == "" {
			add("the record lacks its proof")
		}
	case workflows.StatusRotated:
	default:
		add("its record is %s", record.Status)
	}
	if record.PreviousKeyUUID != "" && record.PreviousKeyUUID != rotated.PreviousKey {
		add("the record has previous key %q, the ledger has %q", record.PreviousKeyUUID, rotated.PreviousKey)
	}
	if record.RotateAt == nil {
		add("the record lacks the time that was published")
	} else if want := strconv.Quote(record.RotateAt.UTC().Format(time.RFC3339)); rotated.Time != want {
		add("the record has the time %s, the key was made for %s", want, rotated.Time)
	}
	if record.RotatedAt == nil || record.RotateAt != nil && !record.RotatedAt.After(*record.RotateAt) {
		add("the record lacks a restart after the time that was published")
	}
	return violations
}
