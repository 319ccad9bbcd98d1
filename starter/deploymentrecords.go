package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"keyturn/workflows"
)

// deploymentRecords are those of the rotation of a project's deployments.
type deploymentRecords struct{ workflows.DeploymentProgress }

func deploymentStatusOf(progress workflows.DeploymentProgress) *rotationStatus {
	return &rotationStatus{records: &deploymentRecords{progress}}
}

func (d *deploymentRecords) value() any  { return &d.DeploymentProgress }
func (d *deploymentRecords) result() any { return d.RotateDeploymentResult }

func (d *deploymentRecords) common() commonRecords {
	r := &d.RotateDeploymentResult
	return commonRecords{&d.Phase, &d.WaitingFor, &d.Counts, r.Connection, r.Outcome, r.StartedAt, r.FinishedAt, r.Change, r.Approval, r.Actions, r.ActionsNotListed}
}

func (d *deploymentRecords) targets() []targetRecord {
	done := []workflows.Status{workflows.StatusRotated, workflows.StatusVerified, workflows.StatusSkipped, workflows.StatusPlanned}
	targets := make([]targetRecord, len(d.Targets))
	for i, r := range d.Targets {
		targets[i] = targetRecord{
			id: r.Process, name: r.Process, otherNames: []string{r.Host, r.ReplicaSet}, role: r.Role, status: r.Status,
			isDone: slices.Contains(done, r.Status), doneAt: r.RotatedAt,
			previousKey: r.PreviousKeyUUID, newKey: r.NewKeyUUID, rotatedAt: r.RotatedAt, verifiedAt: r.VerifiedAt,
			carriedOver: r.CarriedOver, ambiguous: r.Ambiguous, failure: r.Error, firstFailure: r.FirstError, kmip: r.KMIP, remark: r.Remark(),
			clusterID: r.ClusterID, clusterName: r.ClusterName,
			host: r.Host, replicaSet: r.ReplicaSet, previousRotateAt: r.PreviousRotateAt, rotateAt: r.RotateAt, provenBy: string(r.ProvenBy), snapshotID: r.SnapshotID,
		}
	}
	return targets
}

func (d *deploymentRecords) name() string { return "project " + d.ProjectID }

func (d *deploymentRecords) title() string {
	return "Key rotation of the deployments of project " + d.ProjectID
}

func (d *deploymentRecords) workflowID() string {
	return workflows.RotateDeploymentID(d.Connection, d.ProjectID)
}

func (d *deploymentRecords) foreign() string {
	if d.Proof == "" {
		return "it has no proof"
	}
	return ""
}

// continueIn keeps to the clusters of the rotation that is continued.
func (d *deploymentRecords) continueIn(input *rotationInput) string {
	completed := workflows.ProcessRecordsToContinue(d.Targets)
	input.deployment.Completed, input.deployment.ClusterIDs = completed, d.clusterIDs()
	rotated := 0
	for _, record := range completed {
		if record.RotatedAt != nil {
			rotated++
		}
	}
	text := fmt.Sprintf("%d of %d processes are rotated and not rotated again while the configuration has the same time for them", rotated, len(d.Targets))
	if uncertain := len(completed) - rotated; uncertain > 0 {
		text += fmt.Sprintf("; a time may have been published for %d more: where the configuration has it, keyturn waits for the restart", uncertain)
	}
	return text
}

func (d *deploymentRecords) clusterIDs() (ids []string) {
	for _, r := range d.Targets {
		if !slices.Contains(ids, r.ClusterID) {
			ids = append(ids, r.ClusterID)
		}
	}
	return ids
}

func (d *deploymentRecords) clusterNames() string {
	var names []string
	for _, r := range d.Targets {
		if !slices.Contains(names, r.ClusterName) {
			names = append(names, r.ClusterName)
		}
	}
	return someOf(names)
}

func (d *deploymentRecords) subject() []fact {
	proof := string(d.Proof)
	if progress := d.proof(); progress != "" {
		proof += ": " + progress
	}
	return []fact{{"Project", d.ProjectID}, {"Clusters", d.clusterNames()}, {"Proof", proof}}
}

// setRecord is what the records say about a replica set.
type setRecord struct {
	workflows.ReplicaSetRecord
	member    string // that the snapshot was taken from; empty = not known
	isSkipped bool   // no member of it was rotated
}

func (s setRecord) isProven() bool { return s.ProvenBy != "" }

// replicaSets are those of the targets, in their order. The record of the member
// whose snapshot has proven a replica set stands for the replica set.
func (d *deploymentRecords) replicaSets() (sets []setRecord) {
	type key struct{ cluster, set string }
	indexOf := map[key]int{}
	for _, r := range d.Targets {
		k := key{r.ClusterID, r.ReplicaSet}
		i, isKnown := indexOf[k]
		if !isKnown {
			i = len(sets)
			indexOf[k] = i
			sets = append(sets, setRecord{ReplicaSetRecord: workflows.ReplicaSetRecord{ClusterID: r.ClusterID, ReplicaSet: r.ReplicaSet}, isSkipped: true})
		}
		sets[i].isSkipped = sets[i].isSkipped && r.Status == workflows.StatusSkipped
		if r.ProvenBy != "" {
			sets[i].member, sets[i].ProvenBy, sets[i].ProvenAt, sets[i].SnapshotID, sets[i].KMIP = r.Host, r.ProvenBy, r.VerifiedAt, r.SnapshotID, r.KMIP
		}
	}
	for _, r := range d.ReplicaSets {
		if i, isKnown := indexOf[key{r.ClusterID, r.ReplicaSet}]; isKnown && !sets[i].isProven() {
			sets[i].ReplicaSetRecord = r
		}
	}
	return sets
}

// proof is the number of replica sets that a snapshot has proven.
func (d *deploymentRecords) proof() string {
	sets := d.replicaSets()
	if d.Proof == workflows.ProofAgent || d.Outcome == workflows.OutcomePlanned || len(sets) == 0 {
		return ""
	}
	proven := 0
	for _, set := range sets {
		if set.isProven() {
			proven++
		}
	}
	return fmt.Sprintf("%d of %s proven", proven, pluralize(len(sets), "replica set"))
}

// warning: what was asked for was done, except for the proof.
func (d *deploymentRecords) warning() string {
	if d.Outcome != workflows.OutcomeRotatedUnproven {
		return ""
	}
	var unproven []string
	for _, set := range d.replicaSets() {
		if !set.isProven() && !set.isSkipped {
			unproven = append(unproven, set.ReplicaSet)
		}
	}
	return "every process is rotated, as its agent reports, but no snapshot proves the new key of " + someOf(unproven) + "; to wait for the proof again, without rotating again"
}

// remarks say of each replica set how it is proven, or why it is not.
func (d *deploymentRecords) remarks() remarkSection {
	section := remarkSection{title: "Replica sets", caption: "What proves the new key of each replica set", columns: [3]string{"Replica set", "Proof", "Remark"}}
	if d.proof() == "" {
		return section
	}
	for _, set := range d.replicaSets() {
		state, parts := markLine(markOpen, "not proven yet"), []string{}
		switch {
		case set.isProven():
			state = markLine(markGood, "proven by "+string(set.ProvenBy))
			if set.member != "" {
				parts = append(parts, "member "+set.member)
			}
		case set.isSkipped:
			state = markLine(markNeutral, "skipped")
		case d.Phase == workflows.PhaseRecording || d.Phase == workflows.PhaseDone:
			state = markLine(markBad, "not proven")
		}
		if set.SnapshotID != "" {
			parts = append(parts, "snapshot "+set.SnapshotID)
		}
		if said := datedEvidenceText(set.KMIP); said != "" {
			parts = append(parts, "KMIP server: "+said)
		}
		if set.Reason != "" {
			parts = append(parts, set.Reason)
		}
		section.rows = append(section.rows, remark{set.ReplicaSet, state, orDash(strings.Join(parts, "; "))})
	}
	return section
}

var (
	processField    = newTextField("Process", func(t targetRecord) string { return t.name })
	hostField       = newTextField("Host", func(t targetRecord) string { return t.host })
	replicaSetField = newTextField("Replica set", func(t targetRecord) string { return t.replicaSet })
	clusterField    = newTextField("Cluster", func(t targetRecord) string { return t.clusterName })
	rotateAtField   = newTimeField("Rotate at", func(t targetRecord) *time.Time { return t.rotateAt })
	provenByField   = newTextField("Proven by", func(t targetRecord) string { return t.provenBy })
	lastTimeField   = newTextField("Last rotation", func(t targetRecord) string { return t.previousRotateAt })
)

func (d *deploymentRecords) columns() []column {
	return []column{
		{processField, hostField}, {replicaSetField, clusterField}, {statusField, roleField}, {rotateAtField, rotatedField},
		{verifiedField, provenByField}, {previousKeyField, newKeyField},
	}
}

func (d *deploymentRecords) planColumns() []column {
	return []column{{processField}, {hostField}, {replicaSetField}, {clusterField}, {roleField}, {statusField}, {lastTimeField}, {currentKeyField}}
}

func (d *deploymentRecords) notes() []htmlNote {
	return []htmlNote{
		noteKeys,
		{"Rotate at", "The time that was published in the automation configuration for the process. Its agent rotates the key once for each time."},
		{"rotated", "The agent reports the configuration with that time, and the process has restarted since."},
		{"verified", "A snapshot of this process that was taken later names another key. A snapshot is taken of one member of a replica set: the others stay rotated."},
		{"Proven by", "What shows that the key is new: a snapshot, or the KMIP server that says when the key was made."},
	}
}

func (d *deploymentRecords) runColumns() []csvRunColumn {
	return append([]csvRunColumn{{"connection", d.Connection}, {"projectId", d.ProjectID}, {"proof", string(d.Proof)}}, d.common().commonRunColumns()...)
}

func (d *deploymentRecords) targetColumns() []csvColumn {
	proofs := map[[2]string]setRecord{}
	for _, set := range d.replicaSets() {
		proofs[[2]string{set.ClusterID, set.ReplicaSet}] = set
	}
	ofSet := func(t targetRecord) setRecord { return proofs[[2]string{t.clusterID, t.replicaSet}] }
	columns := []csvColumn{
		{"process", func(t targetRecord) string { return t.name }},
		{"host", func(t targetRecord) string { return t.host }},
		{"replicaSet", func(t targetRecord) string { return t.replicaSet }},
		{"clusterId", func(t targetRecord) string { return t.clusterID }},
		{"clusterName", func(t targetRecord) string { return t.clusterName }},
		{"role", func(t targetRecord) string { return string(t.role) }},
		{"status", func(t targetRecord) string { return string(t.status) }},
		{"previousRotateAt", func(t targetRecord) string { return t.previousRotateAt }},
		{"rotateAt", func(t targetRecord) string { return timeText(t.rotateAt) }},
	}
	columns = append(columns, idColumns...)
	columns = append(columns, []csvColumn{
		{"provenBy", func(t targetRecord) string { return t.provenBy }},
		{"snapshotId", func(t targetRecord) string { return t.snapshotID }},
		{"replicaSetProvenBy", func(t targetRecord) string { return string(ofSet(t).ProvenBy) }},
		{"replicaSetReason", func(t targetRecord) string { return ofSet(t).Reason }},
	}...)
	columns = append(columns, settledColumns...)
	return append(columns, errorColumns...)
}
