package main

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
	"keyturn/workflows"
)

// statusOfEntry is the status of a rotation as its entry records it.
func statusOfEntry(e ledgerentry.Entry) (statusView, error) {
	status := knownOf(e)
	ended, err := ledgerentry.ReadBody(e.Body, status.value())
	if err != nil {
		return nil, err
	}
	failure := ""
	if ended != nil {
		failure = strings.TrimPrefix(ended.Type+": "+ended.Message, ": ")
	}
	status.markEnded(failure)
	status.ofRun(e.WorkflowID, e.RunID)
	return status, nil
}

// knownOf is what an entry says about a rotation besides its result: one that was
// terminated may have left none.
func knownOf(e ledgerentry.Entry) statusView {
	outcome, finishedAt := workflows.Outcome(e.Outcome), e.FinishedAt
	change := workflows.Change{Ticket: e.Ticket, RequestedBy: e.RequestedBy}
	switch e.Kind {
	case ledgerentry.KindCluster:
		known := workflows.RotateClusterResult{
			Connection: e.Connection, ProjectID: e.ProjectID, Outcome: outcome, StartedAt: e.StartedAt, FinishedAt: &finishedAt, Change: change,
		}
		if len(e.Clusters) > 0 {
			known.ClusterID, known.ClusterName = e.Clusters[0].ID, e.Clusters[0].Name
		}
		return clusterStatusOf(workflows.Progress{RotateClusterResult: known})
	case ledgerentry.KindDeployment:
		return deploymentStatusOf(workflows.DeploymentProgress{RotateDeploymentResult: workflows.RotateDeploymentResult{
			Connection: e.Connection, ProjectID: e.ProjectID, Outcome: outcome, StartedAt: e.StartedAt, FinishedAt: &finishedAt, Change: change,
		}})
	default:
		return &fleetStatus{FleetProgress: workflows.FleetProgress{RotateFleetResult: workflows.RotateFleetResult{
			Connection: e.Connection, Outcome: outcome, StartedAt: e.StartedAt, FinishedAt: &finishedAt, Change: change,
		}}}
	}
}

// recordedKeys are the keys of all clusters, as the ledger's entries record them.
type recordedKeys struct{ clusters map[clusterKey]*clusterKeys }

type clusterKey struct{ connection, project, cluster string }

// clusterKeys are the keys of one cluster.
type clusterKeys struct {
	clusterKey
	// name is of the newest entry that has one.
	name    string
	namedBy entryOrder
	// last is the newest entry about the cluster, without its body.
	last ledgerentry.Entry
	// kinds of targets. A cluster has those of both kinds after it was upgraded to an
	// Ops Manager that encrypts with other keys.
	kinds map[ledgerentry.Kind]*targetKeys
}

// targetKeys are the keys of a cluster's targets of one kind.
type targetKeys struct {
	// newest entry that has records of them. They name all targets: one that they do
	// not name is gone.
	newest entryOrder
	byID   map[string]*recordedKey
}

// recordedKey is the key of a target: what its newest rotation says about it.
type recordedKey struct {
	name, host string
	namedBy    entryOrder
	// rotatedAt is when the key came into force; zero = no rotation of this target is
	// recorded.
	rotatedAt time.Time
	// key is empty where it is not known: a process that no snapshot was taken from.
	key, previousKey string
	rotatedBy        entryOrder
}

// entryOrder orders entries by when their rotations ended. The zero value is before all.
type entryOrder struct {
	finishedAt time.Time
	chain      string
	sequence   int64
}

func orderOf(e ledgerentry.Entry) entryOrder { return entryOrder{e.FinishedAt, e.Chain, e.Sequence} }

func (o entryOrder) compare(other entryOrder) int {
	return cmp.Or(o.finishedAt.Compare(other.finishedAt), strings.Compare(o.chain, other.chain), cmp.Compare(o.sequence, other.sequence))
}

// supersedes reports whether what an entry says replaces what the other one says, and
// notes it.
func (o entryOrder) supersedes(other *entryOrder) bool {
	isNewer := o.compare(*other) > 0
	if isNewer {
		*other = o
	}
	return isNewer
}

func newRecordedKeys() *recordedKeys { return &recordedKeys{map[clusterKey]*clusterKeys{}} }

// readRecordedKeys reads the keys from the entries that a filter selects.
func readRecordedKeys(ctx context.Context, l *ledger.Ledger, filter ledger.Filter) (*recordedKeys, error) {
	keys := newRecordedKeys()
	for entry, err := range l.Entries(ctx, filter) {
		if err != nil {
			return nil, err
		}
		keys.add(entry)
	}
	return keys, nil
}

// add adds an entry, in any order, and returns its status; nil = its records cannot be
// read, which whoever verifies the ledger finds.
func (r *recordedKeys) add(e ledgerentry.Entry) statusView {
	status, err := statusOfEntry(e)
	if err != nil {
		status = nil
	}
	byCluster := map[string][]targetRecord{}
	if rotation, hasTargets := status.(*rotationStatus); hasTargets {
		for _, t := range rotation.records.targets() {
			id := strings.ToLower(t.clusterID)
			if e.Kind == ledgerentry.KindCluster && len(e.Clusters) > 0 {
				id = e.Clusters[0].ID
			}
			byCluster[id] = append(byCluster[id], t)
		}
	}
	e.Body = nil
	for _, named := range e.Clusters {
		key := clusterKey{e.Connection, e.ProjectID, named.ID}
		cluster := r.clusters[key]
		if cluster == nil {
			cluster = &clusterKeys{clusterKey: key, kinds: map[ledgerentry.Kind]*targetKeys{}}
			r.clusters[key] = cluster
		}
		cluster.add(e, named.Name, byCluster[named.ID])
	}
	return status
}

func (c *clusterKeys) add(e ledgerentry.Entry, name string, records []targetRecord) {
	order := orderOf(e)
	if order.compare(orderOf(c.last)) > 0 {
		c.last = e
	}
	if name != "" && order.supersedes(&c.namedBy) {
		c.name = name
	}
	if len(records) == 0 {
		return
	}
	keys := c.kinds[e.Kind]
	if keys == nil {
		keys = &targetKeys{byID: map[string]*recordedKey{}}
		c.kinds[e.Kind] = keys
	}
	order.supersedes(&keys.newest)
	for _, t := range records {
		key := keys.byID[t.id]
		if key == nil {
			key = &recordedKey{}
			keys.byID[t.id] = key
		}
		key.add(order, e.Kind, t)
	}
}

func (k *recordedKey) add(order entryOrder, kind ledgerentry.Kind, t targetRecord) {
	if order.supersedes(&k.namedBy) {
		k.name, k.host = t.name, t.host
	}
	at := cmp.Or(t.rotatedAt, t.verifiedAt)
	if hasNewKey(kind, t) && at != nil && order.supersedes(&k.rotatedBy) {
		k.rotatedAt, k.key, k.previousKey = *at, t.newKey, t.previousKey
	}
}

// hasNewKey reports whether a target was rotated. What was sent to a cluster's target
// and not read back proves nothing. A process has rotated where it has restarted since,
// whatever its key.
func hasNewKey(kind ledgerentry.Kind, t targetRecord) bool {
	return t.status == workflows.StatusVerified || kind == ledgerentry.KindDeployment && t.status == workflows.StatusRotated
}

// current are the targets of the kind that was rotated last.
func (c *clusterKeys) current() (kind ledgerentry.Kind, targets []*recordedKey) {
	var newest time.Time
	for _, candidate := range []ledgerentry.Kind{ledgerentry.KindCluster, ledgerentry.KindDeployment} {
		of := c.kinds[candidate].current()
		latest := time.Time{}
		for _, t := range of {
			if t.rotatedAt.After(latest) {
				latest = t.rotatedAt
			}
		}
		if len(of) > 0 && (kind == "" || latest.After(newest)) {
			kind, targets, newest = candidate, of, latest
		}
	}
	return kind, targets
}

// current are the targets that are not gone, by ID; none for nil.
func (k *targetKeys) current() (targets []*recordedKey) {
	if k == nil {
		return nil
	}
	for _, id := range sortedIDs(k.byID) {
		if target := k.byID[id]; target.namedBy == k.newest {
			targets = append(targets, target)
		}
	}
	return targets
}

func sortedIDs[T any](of map[string]T) []string {
	ids := make([]string, 0, len(of))
	for id := range of {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// keyStatus says how a cluster's keys are.
type keyStatus string

// Statuses of a cluster's keys, the worst one first.
const (
	keyDrifted keyStatus = "drifted" // a key in force is not the one that was recorded last
	keyNever   keyStatus = "never"   // a target was never rotated, as far as is recorded
	keyOverdue keyStatus = "overdue" // the oldest key is older than the policy allows
	keyOK      keyStatus = "ok"
)

var keyStatuses = []keyStatus{keyDrifted, keyNever, keyOverdue, keyOK}

// keyAge is what is known about the oldest key of a cluster.
type keyAge struct {
	Status      keyStatus        `json:"status"`
	Connection  string           `json:"connection"`
	ProjectID   string           `json:"projectId"`
	ClusterID   string           `json:"clusterId"`
	ClusterName string           `json:"clusterName"`
	Kind        ledgerentry.Kind `json:"kind"` // empty = no rotation is recorded
	// Target has the oldest key. KeyUUID is empty where it is not known.
	Target    string              `json:"target"`
	KeyUUID   string              `json:"keyUUID"`
	RotatedAt *time.Time          `json:"rotatedAt"`
	Age       *workflows.Duration `json:"age"` // in whole minutes
	// Targets is their number, and Checked that of those whose key in force is known
	// to be, or not to be, the recorded one.
	Targets int    `json:"targets"`
	Checked int    `json:"checked"`
	Reason  string `json:"reason"` // why the status is not ok

	LastRotation *lastRotation `json:"lastRotation"`
}

// lastRotation is the newest entry about a cluster.
type lastRotation struct {
	Outcome    string    `json:"outcome"`
	FinishedAt time.Time `json:"finishedAt"`
	Ticket     string    `json:"ticket"`
	WorkflowID string    `json:"workflowId"`
	RunID      string    `json:"runId"`
}

// ageAt is the age of the cluster's oldest key at a time.
func (c *clusterKeys) ageAt(now time.Time, olderThan time.Duration) keyAge {
	kind, targets := c.current()
	age := keyAge{
		Status: keyOK, Connection: c.connection, ProjectID: c.project, ClusterID: c.cluster, ClusterName: c.name,
		Kind: cmp.Or(kind, c.last.Kind), Targets: len(targets),
		LastRotation: &lastRotation{c.last.Outcome, c.last.FinishedAt, c.last.Ticket, c.last.WorkflowID, c.last.RunID},
	}
	var never []string
	for _, t := range targets {
		switch {
		case t.rotatedAt.IsZero():
			never = append(never, t.name)
		case age.RotatedAt == nil || t.rotatedAt.Before(*age.RotatedAt):
			age.Target, age.KeyUUID, age.RotatedAt = t.name, t.key, &t.rotatedAt
		}
	}
	if age.RotatedAt != nil {
		passed := workflows.Duration(now.Sub(*age.RotatedAt).Truncate(time.Minute))
		age.Age = &passed
	}
	switch {
	case len(targets) == 0:
		age.Status, age.Reason = keyNever, "no rotation of it has reached a target"
	case len(never) > 0:
		age.Status, age.Reason = keyNever, "no rotation is recorded of "+someOf(never)
	case now.Sub(*age.RotatedAt) > olderThan:
		age.Status, age.Reason = keyOverdue, "the key of "+age.Target+" is older than "+workflows.Duration(olderThan).String()
	}
	return age
}

// agesAt are those of all clusters.
func (r *recordedKeys) agesAt(now time.Time, olderThan time.Duration) []keyAge {
	ages := []keyAge{}
	for _, cluster := range r.clusters {
		ages = append(ages, cluster.ageAt(now, olderThan))
	}
	slices.SortFunc(ages, compareAges)
	return ages
}

// compareAges puts the worst first, then the oldest.
func compareAges(a, b keyAge) int {
	return cmp.Or(
		cmp.Compare(slices.Index(keyStatuses, a.Status), slices.Index(keyStatuses, b.Status)),
		timeOf(a.RotatedAt).Compare(timeOf(b.RotatedAt)),
		strings.Compare(a.Connection, b.Connection), strings.Compare(a.ProjectID, b.ProjectID), strings.Compare(a.ClusterName, b.ClusterName), strings.Compare(a.ClusterID, b.ClusterID),
	)
}

func (a keyAge) name() string { return cmp.Or(a.ClusterName, a.ClusterID) }

func (a keyAge) statusLine() htmlLine {
	class := markBad
	if a.Status == keyOK {
		class = markGood
	}
	line := markLine(class, string(a.Status))
	line.Status = true
	return line
}

// ageText is the age in days, for people.
func (a keyAge) ageText() string {
	if a.Age == nil {
		return ""
	}
	return pluralize(int(a.Age.Std()/(24*time.Hour)), "day")
}

func countAges(ages []keyAge) map[keyStatus]int {
	counts := map[keyStatus]int{}
	for _, age := range ages {
		counts[age.Status]++
	}
	return counts
}

// agesText counts clusters by status: "12 clusters: 1 drifted, 11 ok".
func agesText(ages []keyAge) string {
	counts, parts := countAges(ages), []string{}
	for _, status := range keyStatuses {
		if counts[status] > 0 {
			parts = append(parts, strconv.Itoa(counts[status])+" "+string(status))
		}
	}
	return strings.TrimSuffix(pluralize(len(ages), "cluster")+": "+strings.Join(parts, ", "), ": ")
}

var ageColumns = []columnOf[keyAge]{
	{{title: "Status", line: keyAge.statusLine}},
	{newTextField("Cluster", keyAge.name), newIDField("Cluster ID", func(a keyAge) string { return a.ClusterID })},
	{newTextField("Age", keyAge.ageText), newTimeField("Rotated", func(a keyAge) *time.Time { return a.RotatedAt })},
	{newTextField("Oldest key of", func(a keyAge) string { return a.Target }), newIDField("Key", func(a keyAge) string { return a.KeyUUID })},
	{newTextField("Reason", func(a keyAge) string { return a.Reason })},
}

// checkedColumn is shown where keys in force were read.
var checkedColumn = columnOf[keyAge]{newTextField("In force", func(a keyAge) string {
	if a.Targets == 0 {
		return ""
	}
	return strconv.Itoa(a.Checked) + " of " + strconv.Itoa(a.Targets) + " checked"
})}

var ageCSV = []csvColumnOf[keyAge]{
	{"status", func(a keyAge) string { return string(a.Status) }},
	{"connection", func(a keyAge) string { return a.Connection }},
	{"projectId", func(a keyAge) string { return a.ProjectID }},
	{"clusterId", func(a keyAge) string { return a.ClusterID }},
	{"clusterName", func(a keyAge) string { return a.ClusterName }},
	{"kind", func(a keyAge) string { return string(a.Kind) }},
	{"target", func(a keyAge) string { return a.Target }},
	{"keyUUID", func(a keyAge) string { return a.KeyUUID }},
	{"rotatedAt", func(a keyAge) string { return timeText(a.RotatedAt) }},
	{"ageDays", func(a keyAge) string { days, _, _ := strings.Cut(a.ageText(), " "); return days }},
	{"targets", func(a keyAge) string { return strconv.Itoa(a.Targets) }},
	{"checked", func(a keyAge) string { return strconv.Itoa(a.Checked) }},
	{"reason", func(a keyAge) string { return a.Reason }},
	{"lastOutcome", func(a keyAge) string {
		if a.LastRotation == nil {
			return ""
		}
		return a.LastRotation.Outcome
	}},
}
