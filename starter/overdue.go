package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyturn/internal/ledger"
	"keyturn/internal/ledgerentry"
	"keyturn/workflows"
)

// defaultOlderThan is the age from which a key is overdue. The runs of a quarterly
// schedule are up to 92 days apart, and each may wait some days for its approval and
// for operators. The alert KeyturnRotationOverdue has the same limit.
const defaultOlderThan = workflows.Duration(100 * 24 * time.Hour)

func addOlderThanFlag(command *cobra.Command, olderThan *workflows.Duration) {
	*olderThan = defaultOlderThan
	command.Flags().Var(olderThan, "older-than", "how old a key may become before it is overdue")
}

func checkOlderThan(olderThan workflows.Duration) error {
	if olderThan <= 0 {
		return usageErrorf("--older-than: must be more than 0s")
	}
	return nil
}

// overdueFlags are the flags of overdue.
type overdueFlags struct {
	keysFlags
	olderThan workflows.Duration
}

func (a *app) overdueCommand() *cobra.Command {
	f := &overdueFlags{}
	command := &cobra.Command{
		Use:     "overdue",
		GroupID: groupLedger,
		Short:   "Find clusters whose keys are too old, were never rotated, or were changed by others",
		Long:    overdueHelp,
		Example: overdueExamples,
		Args:    cobra.NoArgs,
	}
	command.RunE = a.action(func(ctx context.Context, _ *cobra.Command) error {
		if err := f.check(time.Now()); err != nil {
			return err
		}
		if err := checkOlderThan(f.olderThan); err != nil {
			return err
		}
		return a.withLedger(ctx, func(l *ledger.Ledger) error {
			return a.withSession(ctx, func(s *session) error { return a.overdue(ctx, l, s, f) })
		})
	})
	addOlderThanFlag(command, &f.olderThan)
	f.addScopeFlags(a, command)
	a.format.addFlag(command)
	return command
}

func (a *app) overdue(ctx context.Context, l *ledger.Ledger, s *session, f *overdueFlags) error {
	// The ledger first: a rotation that ends in between then shows as drift, which a
	// second look clears up, and not as an age that nobody has checked.
	recorded, err := readRecordedKeys(ctx, l, ledger.Filter{Connection: f.connection})
	if err != nil {
		return err
	}
	list, err := a.listKeys(ctx, s, &keysFlags{connection: f.connection, projects: f.projects, exclude: f.exclude, taskQueue: f.taskQueue})
	if err != nil {
		return err
	}
	v := newOverdueView(recorded, list, f, time.Now())
	if err := a.writeAs(v, v.table, v.csv, v.markdown); err != nil {
		return err
	}
	if a.format == formatCSV {
		for _, line := range v.incomplete() {
			fmt.Fprintln(a.stderr, clean(line))
		}
	}
	return v.failure()
}

// overdueView is what is shown of the clusters' keys.
type overdueView struct {
	Connection string             `json:"connection"`
	OlderThan  workflows.Duration `json:"olderThan"`
	CheckedAt  time.Time          `json:"checkedAt"`
	// Complete: all keys in force that Ops Manager shows were read.
	Complete         bool                         `json:"complete"`
	Reasons          []workflows.IncompleteReason `json:"reasons"`
	ReasonsNotListed int                          `json:"reasonsNotListed"`
	Clusters         []keyAge                     `json:"clusters"`
	// LeftOut are recorded clusters that are gone from Ops Manager, or have no key in
	// force any more. Reason says which.
	LeftOut []keyAge `json:"leftOut"`
}

func newOverdueView(recorded *recordedKeys, list *keyView, f *overdueFlags, now time.Time) *overdueView {
	v := &overdueView{
		Connection: f.connection, OlderThan: f.olderThan, CheckedAt: now.UTC(),
		Complete: list.Complete, Reasons: list.Reasons, ReasonsNotListed: list.ReasonsNotListed, Clusters: []keyAge{}, LeftOut: []keyAge{},
	}
	inForce := newKeysInForce(list)
	for key, cluster := range recorded.clusters {
		if !f.inScope(key.project) {
			continue
		}
		age := cluster.ageAt(now, f.olderThan.Std())
		kind, targets := cluster.current()
		if reason := whyLeftOut(list, inForce, key, kind); reason != "" {
			age.Reason = reason
			v.LeftOut = append(v.LeftOut, age)
			continue
		}
		inForce.check(&age, key, kind, targets)
		v.Clusters = append(v.Clusters, age)
	}
	for _, key := range inForce.clusters() {
		if recorded.clusters[clusterKey{f.connection, key.project, key.cluster}] == nil {
			v.Clusters = append(v.Clusters, keyAge{
				Status: keyNever, Connection: f.connection, ProjectID: key.project, ClusterID: key.cluster, ClusterName: inForce.names[key], Reason: "the ledger has no rotation of it",
			})
		}
	}
	v.selectClusters(f.clusters)
	slices.SortFunc(v.Clusters, compareAges)
	slices.SortFunc(v.LeftOut, compareAges)
	return v
}

// Reasons why a recorded cluster is left out.
const (
	leftOutGone  = "gone from Ops Manager"
	leftOutNoKey = "without a key in force now"
)

// whyLeftOut says why a recorded cluster can be neither overdue nor drifted any more;
// empty = it can. A list that is not complete proves nothing, and the keys of a
// deployment are not always shown.
func whyLeftOut(list *keyView, inForce *keysInForce, key clusterKey, kind ledgerentry.Kind) string {
	switch {
	case !list.Complete:
		return ""
	case list.clusters != nil && !list.clusters[projectCluster{key.project, key.cluster}]:
		return leftOutGone
	case inForce.knows(key) || kind == ledgerentry.KindDeployment:
		return ""
	default:
		return leftOutNoKey
	}
}

// inScope reports whether a project is one of those that were asked for.
func (f *keysFlags) inScope(project string) bool {
	has := func(ids []string) bool {
		return slices.ContainsFunc(ids, func(id string) bool { return strings.EqualFold(id, project) })
	}
	return (len(f.projects) == 0 || has(f.projects)) && !has(f.exclude)
}

// selectClusters keeps the clusters that are asked for by ID or name. One that is not
// found makes the list incomplete.
func (v *overdueView) selectClusters(wanted []string) {
	if len(wanted) == 0 {
		return
	}
	is := func(age keyAge, wanted string) bool {
		return age.ClusterName == wanted || age.ClusterID == strings.ToLower(wanted)
	}
	isWanted := func(age keyAge) bool {
		return slices.ContainsFunc(wanted, func(one string) bool { return is(age, one) })
	}
	for _, one := range wanted {
		if !slices.ContainsFunc(v.Clusters, func(age keyAge) bool { return is(age, one) }) {
			v.Complete = false
			v.Reasons = append(v.Reasons, workflows.IncompleteReason{
				Reason: clusterNotFound, ClusterName: one, Message: "neither Ops Manager nor the ledger has a key of a cluster with this ID or display name: check --cluster and --project",
			})
		}
	}
	v.Clusters = slices.DeleteFunc(v.Clusters, func(age keyAge) bool { return !isWanted(age) })
	v.LeftOut = slices.DeleteFunc(v.LeftOut, func(age keyAge) bool { return !isWanted(age) })
}

// keysInForce are the keys that Ops Manager shows as current, by cluster.
type keysInForce struct {
	current map[clusterKey][]workflows.KeyRecord
	// listed are the clusters that any key names, and names their display names as far
	// as they are known.
	listed map[clusterKey]bool
	names  map[clusterKey]string
	// wide are current keys, by project, that more clusters use than a record names.
	wide map[string][]workflows.KeyRecord
}

func newKeysInForce(list *keyView) *keysInForce {
	k := &keysInForce{map[clusterKey][]workflows.KeyRecord{}, map[clusterKey]bool{}, map[clusterKey]string{}, map[string][]workflows.KeyRecord{}}
	for _, record := range list.Keys {
		for _, id := range record.ClusterIDs {
			key := clusterKey{list.Connection, record.ProjectID, id}
			k.listed[key] = true
			if len(record.ClusterIDs) == 1 && len(record.ClusterNames) == 1 {
				k.names[key] = record.ClusterNames[0]
			}
			if record.Verdict == workflows.VerdictCurrent {
				k.current[key] = append(k.current[key], record)
			}
		}
		if record.NamesLeftOut && record.Verdict == workflows.VerdictCurrent {
			k.wide[record.ProjectID] = append(k.wide[record.ProjectID], record)
		}
	}
	return k
}

func (k *keysInForce) knows(key clusterKey) bool {
	return k.listed[key] || len(k.wide[key.project]) > 0
}

// clusters are those that a key in force names.
func (k *keysInForce) clusters() (keys []clusterKey) {
	for key := range k.current {
		keys = append(keys, key)
	}
	return keys
}

// check compares the recorded keys of a cluster's targets with those in force.
func (k *keysInForce) check(age *keyAge, key clusterKey, kind ledgerentry.Kind, targets []*recordedKey) {
	current := slices.Concat(k.current[key], k.wide[key.project])
	var drifted []string
	for _, t := range targets {
		if t.rotatedAt.IsZero() {
			continue
		}
		isKnown, drift := compareInForce(kind, t, current)
		if isKnown {
			age.Checked++
		}
		if drift != "" {
			drifted = append(drifted, drift)
		}
	}
	if len(drifted) > 0 {
		age.Status, age.Reason = keyDrifted, someOf(drifted)
	}
}

// compareInForce reports whether the key in force of a target is known, and what is
// wrong with it.
func compareInForce(kind ledgerentry.Kind, t *recordedKey, current []workflows.KeyRecord) (isKnown bool, drift string) {
	switch {
	case len(current) == 0:
		return false, ""
	case kind == ledgerentry.KindCluster:
		if !slices.ContainsFunc(current, func(r workflows.KeyRecord) bool { return r.KeyUUID == t.key }) {
			return true, "the key of " + t.name + " is no longer " + t.key
		}
		return true, ""
	}
	newest := newestOf(t.host, current)
	// A process's key is known only from its snapshots: an earlier one says nothing.
	if newest == nil || !newest.NewestSnapshot.After(t.rotatedAt) {
		return false, ""
	}
	switch {
	case t.key != "" && newest.KeyUUID != t.key:
		return true, "the newest snapshot of " + t.name + " has key " + newest.KeyUUID + ", not " + t.key
	case t.key == "" && newest.KeyUUID == t.previousKey:
		return true, "a snapshot of " + t.name + " after the rotation still has key " + t.previousKey
	default:
		return t.key != "", ""
	}
}

// newestOf is the key of the newest snapshot of a host; nil = none.
func newestOf(host string, current []workflows.KeyRecord) (newest *workflows.KeyRecord) {
	for i, record := range current {
		if record.NewestSnapshot == nil || !slices.Contains(record.Hosts, host) {
			continue
		}
		if newest == nil || record.NewestSnapshot.After(*newest.NewestSnapshot) {
			newest = &current[i]
		}
	}
	return newest
}

// failure is what is not ok, in one line; nil = everything is.
func (v *overdueView) failure() error {
	if bad := len(v.Clusters) - countAges(v.Clusters)[keyOK]; bad > 0 {
		return fmt.Errorf("not ok: %d of %s", bad, agesText(v.Clusters))
	}
	if !v.Complete {
		return fmt.Errorf("the keys in force could not all be read: others may be overdue or drifted")
	}
	return nil
}

func (v *overdueView) incomplete() []string {
	if v.Complete {
		return nil
	}
	return append([]string{"NOT COMPLETE: other clusters may exist, and keys may have drifted, because"}, reasonLines(v.Reasons, v.ReasonsNotListed)...)
}

func (v *overdueView) facts() []fact {
	leftOut := map[string][]keyAge{}
	for _, age := range v.LeftOut {
		leftOut[age.Reason] = append(leftOut[age.Reason], age)
	}
	return nonEmpty([]fact{
		{"Connection", v.Connection}, {"Checked", timeText(&v.CheckedAt)}, {"Policy", "a key is overdue after " + v.OlderThan.String()},
		{"Clusters", strings.TrimPrefix(agesText(v.Clusters), "clusters: ")}, {"Gone", leftOutText(leftOut[leftOutGone], leftOutGone)}, {"Left out", leftOutText(leftOut[leftOutNoKey], leftOutNoKey)},
	})
}

func leftOutText(ages []keyAge, reason string) string {
	if len(ages) == 0 {
		return ""
	}
	return pluralize(len(ages), "cluster") + ", recorded and " + reason + ": " + joinedNames(ages)
}

func joinedNames(ages []keyAge) string {
	var names []string
	for _, age := range ages {
		names = append(names, age.name())
	}
	return someOf(names)
}

func (v *overdueView) columns() []columnOf[keyAge] {
	return append(slices.Clone(ageColumns), checkedColumn)
}

func (v *overdueView) table(l layout) string {
	text := l.head(v.facts(), "")
	for _, line := range v.incomplete() {
		text += l.line(clean(line)) + "\n"
	}
	if len(v.Clusters) > 0 {
		text += "\n" + tableOf(l, v.columns(), v.Clusters)
	}
	return text
}

func (v *overdueView) csv() string { return csvOf(ageCSV, v.Clusters) }

func (v *overdueView) markdown() string {
	text := markdownHead("Ages of master keys", v.facts()) + incompleteMarkdown(v.incomplete())
	if len(v.Clusters) > 0 {
		text += "\n" + markdownOf(v.columns(), v.Clusters)
	}
	return text
}

const overdueHelp = `Compares the keys in force with the ledger, and shows the age of each cluster's
oldest key: by the rotations that the ledger has recorded, whoever started them.
It requires a running worker, which reads the keys in force as "keyturn keys"
does, and changes nothing.

Statuses, the worst one first:
  drifted  a key in force is not the one that was recorded last: somebody
           rotated it without keyturn, or restored an older one
  never    no rotation of the cluster, or of one of its targets, is recorded
  overdue  the oldest key came into force longer ago than --older-than
  ok       none of these

The exit code is 1 if a cluster is not ok, or if the keys in force could not all
be read.

The default of --older-than fits a quarterly schedule, whose runs are up to 92
days apart: it leaves 8 days for the rotation, its approval and operators. For
another schedule, add 8 days to the longest time between two of its runs.

A cluster whose backup has its own keys is compared target by target. In a
deployment each mongod has a key of its own, which only its snapshots name, and
Ops Manager takes a snapshot of one member of a replica set. So a process is
checked only if a snapshot was taken from it after its last recorded rotation;
"In force" counts those. The age of the others is that of the recorded rotation.

If the ledger has rotations of both kinds for a cluster, the kind that was
rotated last counts.

A recorded cluster that is gone from Ops Manager is not checked, only named, so
that it is not overdue forever. The same applies to a cluster for which Ops
Manager no longer shows a key, unless it has a deployment, whose keys are not
always shown.`

const overdueExamples = `  keyturn overdue

  # For a job: exit code 1 if anything is not ok, for a monthly schedule
  keyturn overdue --older-than 40d -o csv > overdue.csv

  # One cluster
  keyturn overdue --project 5196d3628d022db4cbc26d9e --cluster orders`
