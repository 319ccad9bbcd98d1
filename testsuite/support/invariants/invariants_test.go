package invariants

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// rotated is a ledger with one applied PUT, and the record that fits it.
func rotated() (simulator.Ledger, workflows.TargetRecord) {
	now := time.Now()
	record := workflows.TargetRecord{Status: workflows.StatusVerified, PreviousKeyUUID: "old", NewKeyUUID: "new", RotatedAt: &now, VerifiedAt: &now}
	record.ClusterID, record.Name = "id", "orders-0"
	return simulator.Ledger{Rotations: []simulator.Rotation{{ClusterID: "id", PreviousKey: "old", NewKey: "new"}}}, record
}

func TestConsistentRecordHasNoViolations(t *testing.T) {
	ledger, record := rotated()
	require.NoError(t, CheckRecords(ledger, []workflows.TargetRecord{record}))
}

func TestEveryViolationIsReported(t *testing.T) {
	for want, change := range map[string]func(*simulator.Ledger, *workflows.TargetRecord){
		"1 PUTs named a sharded cluster as a whole": func(l *simulator.Ledger, _ *workflows.TargetRecord) {
			l.Requests = append(l.Requests, simulator.Request{OnParent: true})
		},
		"orders-0 (failed): 2 PUTs were applied": func(l *simulator.Ledger, r *workflows.TargetRecord) {
			l.Rotations = append(l.Rotations, l.Rotations[0])
			r.Status = workflows.StatusFailed
		},
		"orders-0 (verified): no PUT was applied":                                    func(l *simulator.Ledger, _ *workflows.TargetRecord) { l.Rotations = nil },
		`the record has previous key "other", the ledger has "old"`:                  func(_ *simulator.Ledger, r *workflows.TargetRecord) { r.PreviousKeyUUID = "other" },
		`the record has new key "other", the ledger has "new"`:                       func(_ *simulator.Ledger, r *workflows.TargetRecord) { r.NewKeyUUID = "other" },
		"orders-0 (verified): the record lacks the time of rotation":                 func(_ *simulator.Ledger, r *workflows.TargetRecord) { r.RotatedAt = nil },
		"orders-0 (verified): the record lacks the time of rotation or verification": func(_ *simulator.Ledger, r *workflows.TargetRecord) { r.VerifiedAt = nil },
	} {
		ledger, record := rotated()
		change(&ledger, &record)
		assert.ErrorContains(t, CheckRecords(ledger, []workflows.TargetRecord{record}), want)
	}
}

// rotatedProcess is the ledger of a deployment with one rotated process and a mongos,
// and the record that fits it.
func rotatedProcess() (simulator.DeploymentSummary, []workflows.ProcessRecord) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	restarted := at.Add(2 * time.Second)
	process := simulator.ProcessSummary{
		Name: "orders-0-0", Key: "new", Rotations: []simulator.MemberRotation{{Process: "orders-0-0", Time: `"2026-03-01T12:00:00Z"`, PreviousKey: "old", NewKey: "new"}},
	}
	record := workflows.ProcessRecord{
		Process: "orders-0-0", Status: workflows.StatusVerified, RotateAt: &at, RotatedAt: &restarted, VerifiedAt: &restarted,
		ProvenBy: workflows.ProvenBySnapshot, SnapshotID: "snapshot", PreviousKeyUUID: "old", NewKeyUUID: "new",
	}
	return simulator.DeploymentSummary{Puts: 1, PutsApplied: 1, Processes: []simulator.ProcessSummary{process, {Name: "orders-mongos-0"}}}, []workflows.ProcessRecord{record}
}

func TestConsistentProcessHasNoViolations(t *testing.T) {
	deployment, records := rotatedProcess()
	require.NoError(t, CheckProcesses(deployment, records))
	records[0].Status, records[0].NewKeyUUID, records[0].PreviousKeyUUID = workflows.StatusRotated, "", ""
	require.NoError(t, CheckProcesses(deployment, records), "one of which no snapshot was taken")
}

func TestEveryViolationOfAProcessIsReported(t *testing.T) {
	for want, change := range map[string]func(*simulator.DeploymentSummary, *workflows.ProcessRecord){
		"PUT 7 changed other bytes": func(d *simulator.DeploymentSummary, _ *workflows.ProcessRecord) {
			d.Violations = []string{"PUT 7 changed other bytes"}
		},
		"1 of 2 PUTs were applied":               func(d *simulator.DeploymentSummary, _ *workflows.ProcessRecord) { d.Puts = 2 },
		"orders-0-0: it has no record":           func(_ *simulator.DeploymentSummary, r *workflows.ProcessRecord) { r.Process = "other" },
		"other: Ops Manager has no such process": func(_ *simulator.DeploymentSummary, r *workflows.ProcessRecord) { r.Process = "other" },
		"orders-0-0 (verified): it got 2 new keys, expected 1": func(d *simulator.DeploymentSummary, _ *workflows.ProcessRecord) {
			d.Processes[0].Rotations = append(d.Processes[0].Rotations, d.Processes[0].Rotations[0])
		},
		"it got 0 new keys, expected 1":                             func(d *simulator.DeploymentSummary, _ *workflows.ProcessRecord) { d.Processes[0].Rotations = nil },
		`its current key is "newer", the rotation made "new"`:       func(d *simulator.DeploymentSummary, _ *workflows.ProcessRecord) { d.Processes[0].Key = "newer" },
		`the record has new key "old", the ledger has "new"`:        func(_ *simulator.DeploymentSummary, r *workflows.ProcessRecord) { r.NewKeyUUID = "old" },
		`the record has previous key "other", the ledger has "old"`: func(_ *simulator.DeploymentSummary, r *workflows.ProcessRecord) { r.PreviousKeyUUID = "other" },
		"the record lacks its proof":                                func(_ *simulator.DeploymentSummary, r *workflows.ProcessRecord) { r.ProvenBy = "" },
		"its record is rotating":                                    func(_ *simulator.DeploymentSummary, r *workflows.ProcessRecord) { r.Status = workflows.StatusRotating },
		"the record lacks the time that was published":              func(_ *simulator.DeploymentSummary, r *workflows.ProcessRecord) { r.RotateAt = nil },
		`the record has the time "2026-03-01T12:00:01Z", the key was made for "2026-03-01T12:00:00Z"`: func(_ *simulator.DeploymentSummary, r *workflows.ProcessRecord) {
			at := r.RotateAt.Add(time.Second)
			r.RotateAt = &at
		},
		"the record lacks a restart after the time": func(_ *simulator.DeploymentSummary, r *workflows.ProcessRecord) { r.RotatedAt = r.RotateAt },
	} {
		deployment, records := rotatedProcess()
		change(&deployment, &records[0])
		assert.ErrorContains(t, CheckProcesses(deployment, records), want)
	}
}

// promised is a simulated deployment with one process that was rotated once and whose
// new key a snapshot shows, the record that fits it, and how to send a PUT with another
// time.
func promised(t *testing.T) (d *simulator.Deployment, record workflows.ProcessRecord, put func(time.Time)) {
	t.Helper()
	om := simulator.Start(t, simulator.Options{})
	d = om.AddDeployment(simulator.DeploymentOptions{Clusters: []simulator.DeployedCluster{{Name: "books", Members: 1}}})
	client, err := opsmanager.New(opsmanager.Config{BaseURL: om.URL, PublicKey: simulator.DefaultPublicKey, PrivateKey: simulator.DefaultPrivateKey, CAPEM: om.CAPEM})
	require.NoError(t, err)
	put = func(at time.Time) {
		t.Helper()
		config, err := client.AutomationConfig(t.Context(), d.ProjectID)
		require.NoError(t, err)
		config, err = config.WithRotationTime([]string{"books-0"}, at)
		require.NoError(t, err)
		require.NoError(t, client.PutAutomationConfig(t.Context(), d.ProjectID, config, func() error { return nil }))
	}
	at := time.Now().UTC().Truncate(time.Second).Add(-time.Second)
	put(at)
	awaitRotations(t, d, 1)
	rotation, process := d.Rotations("books-0")[0], d.Process("books-0")
	snapshot := d.TakeMemberSnapshot(d.ClusterIDs[0], simulator.MemberSnapshot{From: []string{"books-0"}})
	return d, workflows.ProcessRecord{
		Process: "books-0", Host: snapshot.Parts[0].MachineID, ReplicaSet: process.ReplicaSet, ClusterID: d.ClusterIDs[0], Status: workflows.StatusVerified,
		RotateAt: &at, RotatedAt: &rotation.At, VerifiedAt: &rotation.At, ProvenBy: workflows.ProvenBySnapshot,
		SnapshotID: snapshot.ID, PreviousKeyUUID: rotation.PreviousKey, NewKeyUUID: rotation.NewKey,
	}, put
}

func awaitRotations(t *testing.T, d *simulator.Deployment, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		d.Version() // the agents go on when they are looked at
		return len(d.Rotations("books-0")) == n
	}, time.Minute, 10*time.Millisecond)
}

func TestAKeptPromiseHasNoViolations(t *testing.T) {
	d, record, _ := promised(t)
	require.NoError(t, CheckPromise(d, []workflows.ProcessRecord{record}))
	record.CarriedOver, record.RotatedAt = true, nil
	require.NoError(t, CheckPromise(d, []workflows.ProcessRecord{record}), "what an earlier run did is not in this ledger")
	require.NoError(t, CheckPromise(d, nil), "records may be missing where a rotation was terminated")
}

func TestEveryViolationOfThePromiseIsReported(t *testing.T) {
	for want, change := range map[string]func(d *simulator.Deployment, r *workflows.ProcessRecord, put func(time.Time)){
		"set the time of books-0 from": func(_ *simulator.Deployment, r *workflows.ProcessRecord, put func(time.Time)) {
			put(r.RotateAt.Add(-time.Hour))
		},
		"books-0: PUTs had 2 times for it": func(_ *simulator.Deployment, r *workflows.ProcessRecord, put func(time.Time)) {
			put(r.RotateAt.Add(time.Second))
		},
		"books-0: it got 2 new keys": func(d *simulator.Deployment, r *workflows.ProcessRecord, _ func(time.Time)) {
			d.Publish("rival", simulator.SetRotationTime(r.RotateAt.Add(time.Second), "books-0"))
			awaitRotations(t, d, 2)
		},
		"books-0 (rotated): the record has a proof": func(_ *simulator.Deployment, r *workflows.ProcessRecord, _ func(time.Time)) {
			r.Status = workflows.StatusRotated
		},
		`books-0 (verified): no snapshot "other" of it`: func(_ *simulator.Deployment, r *workflows.ProcessRecord, _ func(time.Time)) {
			r.SnapshotID = "other"
		},
		`books-0 (verified): no snapshot "`: func(_ *simulator.Deployment, r *workflows.ProcessRecord, _ func(time.Time)) {
			r.Host = "another:27017"
		},
		`books-0 (verified): the record has new key "old"`: func(_ *simulator.Deployment, r *workflows.ProcessRecord, _ func(time.Time)) {
			r.NewKeyUUID = "old"
		},
		"books-0 (verified): the record lacks a restart": func(_ *simulator.Deployment, r *workflows.ProcessRecord, _ func(time.Time)) {
			r.RotatedAt = r.RotateAt
		},
		"other (rotated): Ops Manager has no such process": func(_ *simulator.Deployment, r *workflows.ProcessRecord, _ func(time.Time)) {
			*r = workflows.ProcessRecord{Process: "other", Status: workflows.StatusRotated, RotateAt: r.RotateAt, RotatedAt: r.RotatedAt}
		},
	} {
		d, record, put := promised(t)
		change(d, &record, put)
		assert.ErrorContains(t, CheckPromise(d, []workflows.ProcessRecord{record}), want)
	}
}
