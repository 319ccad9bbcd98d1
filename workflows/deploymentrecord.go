package workflows

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"keyturn/activities"
)

// OutcomeRotatedUnproven is that of a rotation of deployments which has rotated every
// process, while no snapshot has proven it for every replica set within
// ProofTimeout.
const OutcomeRotatedUnproven Outcome = "rotatedUnproven"

// RotateDeploymentResult is the record of a rotation of a project's deployments: its
// result, or the details of its failure (see [RotateDeploymentResultOf]). Times are
// in UTC.
type RotateDeploymentResult struct {
	// Connection, ProjectID and Proof are the input's.
	Connection string `json:"connection"`
	ProjectID  string `json:"projectId"` // see Connection
	Proof      Proof  `json:"proof"`     // see Connection
	// Outcome is empty while the rotation runs. OutcomeRotated: every process is at
	// least StatusRotated, and every replica set is proven as Proof asks.
	Outcome   Outcome   `json:"outcome"`
	StartedAt time.Time `json:"startedAt"` // when its first run started
	// FinishedAt is nil while the rotation runs.
	FinishedAt *time.Time `json:"finishedAt"`
	// Change is the input's.
	Change Change `json:"change"`
	// Approval is nil if there was none.
	Approval *Approval `json:"approval"`
	// Actions are what operators did, in that order, at most the newest 200.
	Actions []Action `json:"actions"`
	// ActionsNotListed is the number of older actions.
	ActionsNotListed int `json:"actionsNotListed"`
	// Targets are the processes: by clusters and in each of them by replica sets, the
	// config server last. At most 3,000.
	Targets []ProcessRecord `json:"targets"`
	// ReplicaSets has what is known of a replica set as a whole and stands in the
	// record of none of its members: that it was not proven, or that it was proven by
	// a snapshot which does not name its member.
	ReplicaSets []ReplicaSetRecord `json:"replicaSets,omitempty"`
}

// ProcessRecord is the record of one process: a mongod, which has a key of its own.
type ProcessRecord struct {
	// Process is the name in the automation configuration, which identifies it.
	Process string `json:"process"`
	Host    string `json:"host"` // "hostname:port"
	// ReplicaSet is the replica set's ID in the automation configuration.
	ReplicaSet string `json:"replicaSet"`
	// ClusterID is Ops Manager's ID of the sharded cluster or plain replica set, and
	// ClusterName its display name.
	ClusterID   string `json:"clusterId"`
	ClusterName string `json:"clusterName"` // see ClusterID
	Role        Role   `json:"role"`        // the replica set's part in its cluster
	Status      Status `json:"status"`      // see the statuses
	// PreviousRotateAt is the time of the process's last rotation before this one, as
	// the automation configuration had it; empty if there was none.
	PreviousRotateAt string `json:"previousRotateAt,omitempty"`
	// RotateAt is the time that was published for it, in whole seconds: one for each
	// process and rotation. Nil if nothing can have been published.
	RotateAt *time.Time `json:"rotateAt"`
	// RotatedAt is when the process last started, by Ops Manager's clock, as it was
	// seen with the new configuration; nil until then.
	RotatedAt *time.Time `json:"rotatedAt"`
	// VerifiedAt is when a snapshot of this very process was read that proves its new
	// key; nil until then. Of most members no snapshot is taken: they stay
	// StatusRotated, as their agent reports.
	VerifiedAt *time.Time `json:"verifiedAt"`
	// ProvenBy says what has proven the new key; empty until VerifiedAt.
	ProvenBy ProvenBy `json:"provenBy"`
	// PreviousKeyUUID is the key that the newest snapshot of this very process named
	// before the rotation; empty if there was none.
	PreviousKeyUUID string `json:"previousKeyUUID"`
	// NewKeyUUID is the proven key, and SnapshotID the snapshot that proves it; empty
	// until VerifiedAt.
	NewKeyUUID string `json:"newKeyUUID"`
	SnapshotID string `json:"snapshotId"` // see NewKeyUUID
	// KMIP is what the KMIP server said about NewKeyUUID; nil if it was not asked.
	KMIP *KeyEvidence `json:"kmip,omitempty"`
	// Ambiguous reports that the outcome of the PUT was unknown at some point, and was
	// resolved by reading the configuration.
	Ambiguous bool `json:"ambiguous"`
	// CarriedOver reports that an earlier run rotated the process, and that this one
	// found its time still in the configuration and did not rotate it again.
	CarriedOver bool `json:"carriedOver"`
	// Error is why the target failed or was skipped; else nil.
	Error *TargetError `json:"error"`
	// FirstError is the first failure of a target that was retried or skipped
	// after it; else nil.
	FirstError *TargetError `json:"firstError,omitempty"`

	// compact: the JSON leaves out empty fields; see fit.
	compact bool
}

// ProvenBy says what has shown that a key is new.
type ProvenBy = activities.ProvenBy

// Values of ProvenBy.
const (
	// ProvenBySnapshot: a snapshot of a process whose earlier key is known names
	// another key.
	ProvenBySnapshot = activities.ProvenBySnapshot
	// ProvenByKMIP: a snapshot names a key that no earlier snapshot of the replica set
	// names, and the KMIP server says that it was made after the rotation began.
	ProvenByKMIP = activities.ProvenByKMIP
	// ProvenByBoth: both.
	ProvenByBoth = activities.ProvenByBoth
)

// ReplicaSetRecord says of a replica set whether its new key was proven.
type ReplicaSetRecord struct {
	// ClusterID is that of the sharded cluster or plain replica set.
	ClusterID  string `json:"clusterId"`
	ReplicaSet string `json:"replicaSet"` // its ID in the automation configuration
	// ProvenBy is what has proven it, by a snapshot that does not name the member that
	// it was taken from; empty if it was not proven.
	ProvenBy ProvenBy `json:"provenBy,omitempty"`
	// ProvenAt is when the snapshot was read that proves it; nil if none does.
	ProvenAt *time.Time `json:"provenAt,omitempty"`
	// NewKeyUUID is the proven key, of one of the members.
	NewKeyUUID string `json:"newKeyUUID,omitempty"`
	// SnapshotID is the snapshot that proves it, or the last one that was considered.
	SnapshotID string `json:"snapshotId,omitempty"`
	// KMIP is what the KMIP server said about NewKeyUUID.
	KMIP *KeyEvidence `json:"kmip,omitempty"`
	// Reason is why it was not proven within ProofTimeout; empty if it was.
	Reason string `json:"reason,omitempty"`
}

// DeploymentProgress is the response to the progress query and to every update of a
// rotation of deployments. See [Progress].
type DeploymentProgress struct {
	RotateDeploymentResult
	Phase Phase `json:"phase"` // what the rotation is doing
	// Counts is the number of targets by status; a status without targets is
	// left out.
	Counts map[Status]int `json:"counts"`
	// TargetsNotListed is the number of targets that the response to an update
	// leaves out of Targets where it would be too long for Temporal.
	TargetsNotListed int `json:"targetsNotListed,omitempty"`
	// WaitingFor describes what the rotation is waiting for; empty when it has
	// ended.
	WaitingFor string `json:"waitingFor"`
}

// RotateDeploymentResultOf returns the records in the error of a rotation of
// deployments, as a client, a parent workflow or a Nexus caller receives it; false if
// it has none, because the rotation failed before it found any process.
func RotateDeploymentResultOf(err error) (*RotateDeploymentResult, bool) {
	var result RotateDeploymentResult
	if !recordsIn(err, &result) || result.Proof == "" { // a cluster's records have no proof
		return nil, false
	}
	return &result, true
}

// What follows is what a rotation of any kind sees of a process.

func (t *ProcessRecord) id() string    { return t.Process }
func (t *ProcessRecord) label() string { return t.Process }

// names: operators may name a process, its host and port, or its replica set.
func (t *ProcessRecord) names() []string { return []string{t.Process, t.Host, t.ReplicaSet} }

func (t *ProcessRecord) fields() targetFields {
	return targetFields{&t.Status, &t.Error, &t.FirstError}
}

func (t *ProcessRecord) isDone() bool {
	return t.Status == StatusRotated || t.Status == StatusVerified
}

func (t *ProcessRecord) isCarriedOver() bool { return t.CarriedOver }

func (t *ProcessRecord) mayHaveChanged() bool { return t.RotateAt != nil && !t.CarriedOver }

// prepareRetry keeps the time: a process whose time may have been published is only
// waited for.
func (t *ProcessRecord) prepareRetry() { t.RotatedAt = nil }

func (t *ProcessRecord) cells() []string {
	rotateAt := ""
	if t.RotateAt != nil {
		rotateAt = t.RotateAt.Format(time.RFC3339)
	}
	return []string{t.ReplicaSet, rotateAt, t.NewKeyUUID}
}

// Remark is what a person should know of a record besides its status and key.
func (t ProcessRecord) Remark() string {
	remarks := failureRemarks(t.Error, t.FirstError)
	if t.Ambiguous {
		remarks = append(remarks, "PUT outcome was unknown and resolved by reading the configuration")
	}
	if t.CarriedOver {
		remarks = append(remarks, "rotated in an earlier run")
	}
	if t.KMIP != nil && t.KMIP.Outcome == EvidenceAbsent {
		remarks = append(remarks, "the KMIP server does not have the new key")
	}
	return strings.Join(remarks, "; ")
}

// fit makes a copy of the records fit into limit bytes of JSON.
func (r *RotateDeploymentResult) fit(limit int) {
	r.ReplicaSets = slices.Clone(r.ReplicaSets)
	each := func(reduce func(*ProcessRecord)) func() {
		return func() {
			for i := range r.Targets {
				reduce(&r.Targets[i])
			}
		}
	}
	budget{
		texts: r.textsOfRecords(), approval: &r.Approval, actions: actionLog{actions: &r.Actions, notListed: &r.ActionsNotListed}, bytes: r.bytesWithoutTexts,
		reductions: []func(){
			each(func(t *ProcessRecord) { t.compact = true }),
			each(func(t *ProcessRecord) { t.FirstError = nil }),
			each(func(t *ProcessRecord) {
				if t.KMIP != nil {
					*t.KMIP = leastEvidence(*t.KMIP)
				}
			}),
			each(func(t *ProcessRecord) { t.KMIP = nil }),
		},
	}.fit(limit)
}

func (r *RotateDeploymentResult) copied() rotationResult {
	result := *r
	result.Targets, result.Actions = slices.Clone(r.Targets), slices.Clone(r.Actions)
	return &result
}

// textsOfRecords are the texts that may be shortened, which become copies.
func (r *RotateDeploymentResult) textsOfRecords() (texts []*string) {
	for i := range r.Targets {
		t := &r.Targets[i]
		texts = append(texts, cloneTexts(&t.KMIP, &t.Error, &t.FirstError)...)
	}
	for i := range r.ReplicaSets {
		texts = append(texts, cloneTexts(&r.ReplicaSets[i].KMIP)...)
		texts = append(texts, &r.ReplicaSets[i].Reason)
	}
	return texts
}

func (r *RotateDeploymentResult) bytesWithoutTexts() int {
	rest := *r
	rest.Targets, rest.Actions, rest.ReplicaSets, rest.Approval = nil, nil, nil, r.Approval.withoutComment()
	bytes := jsonBytes(rest) + actionBytes(r.Actions)
	for i := range r.Targets {
		bytes += r.Targets[i].bytesWithoutTexts()
	}
	for _, set := range r.ReplicaSets {
		bytes += len(`"replicaSets":[],`) + set.bytesWithoutTexts()
	}
	return bytes
}

const (
	// emptyProcessBytes has what a compact record leaves out in its second part.
	emptyProcessBytes       = len(`{"process":"","host":"","replicaSet":"","clusterId":"","clusterName":"","role":"","status":"","rotateAt":,"rotatedAt":,"verifiedAt":,"provenBy":"",`)
	emptyProcessFieldsBytes = len(`"previousKeyUUID":"","newKeyUUID":"","snapshotId":"","ambiguous":false,"carriedOver":false,"error":null},`)
)

func (t *ProcessRecord) bytesWithoutTexts() int {
	bytes := emptyProcessBytes + emptyProcessFieldsBytes
	for _, text := range []string{
		t.Process, t.Host, t.ReplicaSet, t.ClusterID, t.ClusterName, string(t.Role), string(t.Status), string(t.ProvenBy),
		t.PreviousKeyUUID, t.NewKeyUUID, t.SnapshotID,
	} {
		bytes += textBytes(text, len(text), maxPayload)
	}
	if t.PreviousRotateAt != "" {
		bytes += len(`"previousRotateAt":"",`) + textBytes(t.PreviousRotateAt, len(t.PreviousRotateAt), maxPayload)
	}
	bytes += timesBytes(t.RotateAt, t.RotatedAt, t.VerifiedAt) + errorBytes(t.Error, t.FirstError)
	if t.KMIP != nil {
		bytes += evidenceBytes(t.KMIP)
	}
	if t.compact {
		bytes -= t.bytesLeftOut()
	}
	return bytes
}

// bytesLeftOut is the number of bytes, or a few less, that a compact record saves.
func (t *ProcessRecord) bytesLeftOut() (bytes int) {
	for _, field := range []struct {
		isEmpty bool
		json    string
	}{
		{t.RotateAt == nil, `"rotateAt":null,`}, {t.RotatedAt == nil, `"rotatedAt":null,`}, {t.VerifiedAt == nil, `"verifiedAt":null,`},
		{t.ProvenBy == "", `"provenBy":"",`}, {t.PreviousKeyUUID == "", `"previousKeyUUID":"",`}, {t.NewKeyUUID == "", `"newKeyUUID":"",`},
		{t.SnapshotID == "", `"snapshotId":"",`}, {!t.Ambiguous, `"ambiguous":false,`}, {!t.CarriedOver, `"carriedOver":false,`},
		{t.Error == nil, `"error":null,`},
	} {
		if field.isEmpty {
			bytes += len(field.json)
		}
	}
	return bytes
}

func (s ReplicaSetRecord) bytesWithoutTexts() int {
	bytes := len(`{"clusterId":"","replicaSet":"","provenBy":"","provenAt":,"newKeyUUID":"","snapshotId":"","reason":""},`) + timeBytes
	for _, text := range []string{s.ClusterID, s.ReplicaSet, string(s.ProvenBy), s.NewKeyUUID, s.SnapshotID} {
		bytes += textBytes(text, len(text), maxPayload)
	}
	if s.KMIP != nil {
		bytes += evidenceBytes(s.KMIP)
	}
	return bytes
}

func (p *DeploymentProgress) fitAnswer() {
	fitted, notListed := fitAnswer(len(p.Targets), func(n int) rotationResult {
		result := p.RotateDeploymentResult
		result.Targets = slices.Clone(topRows(p.Targets, n, func(t ProcessRecord) Status { return t.Status }))
		result.ReplicaSets = p.ReplicaSets[:min(n, len(p.ReplicaSets))]
		result.Actions = slices.Clone(p.Actions)
		return &result
	})
	p.RotateDeploymentResult, p.TargetsNotListed = *fitted.(*RotateDeploymentResult), notListed
}

// plainProcess has the JSON of a ProcessRecord.
type plainProcess ProcessRecord

// compactProcess is a ProcessRecord whose JSON leaves out empty fields.
type compactProcess struct {
	Process          string       `json:"process"`
	Host             string       `json:"host"`
	ReplicaSet       string       `json:"replicaSet"`
	ClusterID        string       `json:"clusterId"`
	ClusterName      string       `json:"clusterName"`
	Role             Role         `json:"role"`
	Status           Status       `json:"status"`
	PreviousRotateAt string       `json:"previousRotateAt,omitempty"`
	RotateAt         *time.Time   `json:"rotateAt,omitempty"`
	RotatedAt        *time.Time   `json:"rotatedAt,omitempty"`
	VerifiedAt       *time.Time   `json:"verifiedAt,omitempty"`
	ProvenBy         ProvenBy     `json:"provenBy,omitempty"`
	PreviousKeyUUID  string       `json:"previousKeyUUID,omitempty"`
	NewKeyUUID       string       `json:"newKeyUUID,omitempty"`
	SnapshotID       string       `json:"snapshotId,omitempty"`
	KMIP             *KeyEvidence `json:"kmip,omitempty"`
	Ambiguous        bool         `json:"ambiguous,omitempty"`
	CarriedOver      bool         `json:"carriedOver,omitempty"`
	Error            *TargetError `json:"error,omitempty"`
	FirstError       *TargetError `json:"firstError,omitempty"`
	compact          bool
}

// MarshalJSON leaves out empty fields where the result would be too large for
// Temporal otherwise.
func (t ProcessRecord) MarshalJSON() ([]byte, error) {
	if t.compact {
		return json.Marshal(compactProcess(t))
	}
	return json.Marshal(plainProcess(t))
}
