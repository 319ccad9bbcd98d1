package activities

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/maruel/natural"
	"go.temporal.io/sdk/activity"
	"golang.org/x/sync/errgroup"

	"keyturn/opsmanager"
)

// Proof says what shows that the processes of a replica set have new master keys.
type Proof string

// Values of Proof.
const (
	// ProofAgent: nothing is shown. The agent's report is enough.
	ProofAgent Proof = "agent"
	// ProofSnapshot: a snapshot that was taken after the rotation is encrypted with
	// a new key.
	ProofSnapshot Proof = "snapshot"
	// ProofKMIP: as ProofSnapshot, and the KMIP server says that this key was made
	// after the rotation began.
	ProofKMIP Proof = "kmip"
)

// ListProcessesInput names clusters of the project in Scope.
type ListProcessesInput struct {
	Scope
	// ClusterIDs are top-level clusters: sharded ones or plain replica sets. Empty =
	// all clusters of the project that have processes with KMIP encryption at rest.
	ClusterIDs []string `json:"clusterIds,omitempty"`
	// Proof says what must be known of the time before the rotation: with ProofAgent,
	// no snapshot is read. ProofKMIP is refused where the connection has no KMIP
	// server.
	Proof Proof `json:"proof"`
}

// ListProcessesResult has what a rotation is planned with. In JSON, more than
// maxPlainProcesses are compressed.
type ListProcessesResult struct {
	// ServiceVersion is the version of the Ops Manager that was asked; zero if it
	// names none.
	ServiceVersion opsmanager.ServiceVersion `json:"serviceVersion,omitzero"`
	// ConfigVersion is the version of the automation configuration that was read.
	ConfigVersion int64 `json:"configVersion"`
	// ServerTime is the time by Ops Manager's clock, or up to a second and the
	// duration of a request earlier, never later. It and Temporal's
	// time differ by at most 60 s: more is ClockSkew.
	ServerTime time.Time `json:"serverTime"`
	// LatestRotation is the latest time of all processes of the project at which a
	// key was rotated; zero = there is none. The time of a rotation must be later
	// than it. It is at most 60 s in the future: more is ClockSkew.
	LatestRotation time.Time `json:"latestRotation,omitzero"`
	// Processes are the targets: by clusters in natural order of their names, in
	// each of them by replica sets in natural order of theirs, the config server
	// last, and in each of these in the order of its members in the configuration.
	Processes []Process `json:"processes"`
	// EarlierKeys has an entry for each replica set of which there are snapshots
	// that name a key; none with ProofAgent.
	EarlierKeys []EarlierKeys `json:"earlierKeys,omitempty"`
	// LeftOut names processes with KMIP encryption that belong to no replica set,
	// where ClusterIDs is empty: the first 20. They are no targets.
	LeftOut []string `json:"leftOut,omitempty"`
	// SendsEvents: the worker that listed them has a receiver of events.
	SendsEvents bool `json:"sendsEvents,omitempty"`
}

// Process is a mongod whose master key can be rotated.
type Process struct {
	// Process is its name in the automation configuration, which identifies it.
	Process string `json:"process"`
	// Host is "hostname:port".
	Host string `json:"host"`
	// ReplicaSet is the id of its replica set in the automation configuration.
	ReplicaSet string `json:"replicaSet"`
	// ClusterID is that of the top-level cluster, and ClusterName its display name
	// or the replica set's.
	ClusterID   string `json:"clusterId"`
	ClusterName string `json:"clusterName"` // see ClusterID
	// Role is that of the replica set in its cluster.
	Role Role `json:"role"`
	// PreviousRotateAt is its lastKmipMasterKeyRotation as the configuration has it;
	// "" = none.
	PreviousRotateAt string `json:"previousRotateAt,omitempty"`
	// PreviousKeyUUID is the key that the newest snapshot of this very process names,
	// and PreviousSnapshotID that snapshot; "" = there is none, or its key was rotated
	// since, at PreviousRotateAt.
	PreviousKeyUUID    string `json:"previousKeyUUID,omitempty"`
	PreviousSnapshotID string `json:"previousSnapshotId,omitempty"` // see PreviousKeyUUID
}

// EarlierKeys are the keys that snapshots of a replica set name, whichever member
// they were taken from: at most 100, those of the newest snapshots.
type EarlierKeys struct {
	ClusterID  string   `json:"clusterId"`  // that of the top-level cluster
	ReplicaSet string   `json:"replicaSet"` // its id in the automation configuration
	KeyUUIDs   []string `json:"keyUUIDs"`   // without duplicates
}

const (
	// maxProcesses is how many targets one result has room for.
	maxProcesses = 5_000
	// maxPlainProcesses is how many a result has in readable form.
	maxPlainProcesses = 100
	// maxLeftOut bounds ListProcessesResult.LeftOut.
	maxLeftOut = 20
	// maxEarlierKeys bounds EarlierKeys.KeyUUIDs.
	maxEarlierKeys = 100
	// maxSkew is how far clocks may differ, and how far in the future the time of an
	// earlier rotation may be.
	maxSkew = 60 * time.Second
	// maxPingAge is how old the last report of a process may be. Agents report about
	// once a minute.
	maxPingAge = 5 * time.Minute
	// parallelSnapshotReads is how many clusters' snapshots are read at a time.
	parallelSnapshotReads = 8
)

// plainProcesses is a ListProcessesResult without its methods, or with its lists
// compressed.
type plainProcesses struct {
	listProcessesFields
	Packed []byte `json:"packedProcesses,omitempty"`
}

type listProcessesFields ListProcessesResult

// packedProcesses are the lists that grow with the deployment.
type packedProcesses struct {
	Processes   []Process     `json:"processes"`
	EarlierKeys []EarlierKeys `json:"earlierKeys,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (r ListProcessesResult) MarshalJSON() ([]byte, error) {
	if len(r.Processes) <= maxPlainProcesses {
		return json.Marshal(listProcessesFields(r))
	}
	packed, err := pack(packedProcesses{r.Processes, r.EarlierKeys})
	if err != nil {
		return nil, err
	}
	r.Processes, r.EarlierKeys = nil, nil
	return json.Marshal(plainProcesses{listProcessesFields(r), packed})
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *ListProcessesResult) UnmarshalJSON(data []byte) error {
	var plain plainProcesses
	if err := json.Unmarshal(data, &plain); err != nil {
		return err
	}
	*r = ListProcessesResult(plain.listProcessesFields)
	if plain.Packed == nil {
		return nil
	}
	var lists packedProcesses
	if err := unpack(plain.Packed, &lists); err != nil {
		return err
	}
	r.Processes, r.EarlierKeys = lists.Processes, lists.EarlierKeys
	return nil
}

// ListProcesses finds the processes whose keys can be rotated, changing nothing. It
// refuses, with an error type of its own for each reason, what a rotation must not
// be begun with. Transient errors are retried within the attempt.
func (a *Activities) ListProcesses(ctx context.Context, in ListProcessesInput) (ListProcessesResult, error) {
	ctx, at, err := a.startAttempt(ctx, in.Scope)
	if err != nil {
		return ListProcessesResult{}, err
	}
	defer at.finish()
	if in.Proof == ProofKMIP && a.KMIP[in.Connection] == nil {
		return ListProcessesResult{}, permanent(ErrorInvalidInput, `proof: %q requires a KMIP server, and connection %q has none; set KMIP_ADDRESS for the worker, or use %q`,
			ProofKMIP, in.Connection, ProofSnapshot)
	}
	l := &processListing{attempt: at, in: in}
	if err := l.read(ctx); err != nil {
		if isClusterGone(err) {
			return ListProcessesResult{}, at.clusterGone(err)
		}
		return ListProcessesResult{}, at.failure(err)
	}
	if err := l.selectClusters(ctx); err != nil {
		return ListProcessesResult{}, at.failure(err)
	}
	if err := l.check(); err != nil {
		return ListProcessesResult{}, at.failure(err)
	}
	result := l.result()
	result.SendsEvents = a.Events != nil
	if in.Proof != ProofAgent {
		if err := l.addKeys(ctx, &result); err != nil {
			return ListProcessesResult{}, at.failure(err)
		}
	}
	if len(result.LeftOut) > 0 {
		activity.GetLogger(ctx).Warn("processes with KMIP encryption belong to no replica set and are left out", "processes", nameList(result.LeftOut))
	}
	return result, nil
}

// processListing is one attempt of ListProcesses.
type processListing struct {
	*attempt
	in       ListProcessesInput
	config   configuration
	status   map[string]opsmanager.ProcessStatus // by name
	goal     int64
	hosts    map[string]opsmanager.Host // by hostKey
	clusters []opsmanager.Cluster
	feature  opsmanager.ControlledFeature
	// now is the time by Ops Manager's clock.
	now time.Time
	// deployments are those that were selected, in the order of the result.
	deployments []deployment
}

// read reads what one project says of its processes.
func (l *processListing) read(ctx context.Context) error {
	group, groupCtx := errgroup.WithContext(ctx)
	read := func(do func() error) {
		group.Go(func() error { return l.retryTransient(groupCtx, do) })
	}
	group.Go(func() (err error) {
		l.config, err = l.readConfiguration(groupCtx, l.newRetries())
		return err
	})
	read(func() error {
		status, err := l.client.AutomationStatus(groupCtx, l.in.ProjectID)
		l.goal, l.status = status.GoalVersion, map[string]opsmanager.ProcessStatus{}
		for _, process := range status.Processes {
			l.status[process.Name] = process
		}
		return err
	})
	read(func() error {
		hosts, err := l.client.Hosts(groupCtx, l.in.ProjectID, "")
		l.hosts = hostsByAddress(hosts)
		return err
	})
	read(func() (err error) {
		l.clusters, err = l.client.Clusters(groupCtx, l.in.ProjectID)
		return err
	})
	read(func() (err error) {
		l.feature, err = l.client.ControlledFeature(groupCtx, l.in.ProjectID)
		if apiError, ok := opsmanager.AsError(err); ok && apiError.Kind == opsmanager.NotFound {
			return nil // older than this part of the API; the PUT will show it
		}
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	l.now = l.opsManagerTime()
	return nil
}

// deployment is a replica set, or a sharded cluster, of the automation configuration.
type deployment struct {
	cluster opsmanager.Cluster // the top-level one
	name    string
	sets    []deployedSet
}

// deployedSet is a replica set of a deployment.
type deployedSet struct {
	id      string
	role    Role
	members []deployedMember
}

// deployedMember is a mongod of a replica set.
type deployedMember struct {
	opsmanager.AutomatedProcess
	arbiter bool
}

// isTarget reports whether a member has a master key in a KMIP server.
func (m deployedMember) isTarget() bool { return m.EncryptionEnabled && m.KMIP }

func (d deployment) hasTargets() bool {
	return slices.ContainsFunc(d.sets, func(set deployedSet) bool {
		return slices.ContainsFunc(set.members, deployedMember.isTarget)
	})
}

// selectClusters joins the configuration with the clusters that Ops Manager lists,
// and keeps the deployments that were asked for. What is not asked for may be odd.
func (l *processListing) selectClusters(ctx context.Context) error {
	wanted := map[string]bool{}
	for _, id := range l.in.ClusterIDs {
		wanted[strings.ToLower(id)] = false
	}
	var problems []error
	for _, joined := range l.join() {
		id := strings.ToLower(joined.cluster.ID)
		_, named := wanted[id]
		if len(wanted) == 0 {
			named = joined.hasTargets()
		}
		switch {
		case !named:
			continue
		case joined.problem != "":
			problems = append(problems, l.unexpectedTopology(joined.name, joined.problem))
		case len(wanted) > 0 && wanted[id]:
			problems = append(problems, l.unexpectedTopology(joined.name, "the automation configuration has two deployments for the one cluster that Ops Manager lists"))
		}
		if len(wanted) > 0 {
			wanted[id] = true
		}
		l.deployments = append(l.deployments, joined.deployment)
	}
	for _, id := range l.in.ClusterIDs {
		if !wanted[strings.ToLower(id)] {
			return l.notSelected(ctx, id)
		}
	}
	if len(problems) > 0 {
		return problems[0]
	}
	if len(l.deployments) == 0 {
		return permanent(ErrorEncryptionOff, "GET %s: no process of a replica set in project %s has KMIP encryption at rest; there is no master key to rotate: enable it in the deployment's settings, or check projectId",
			opsmanager.AutomationConfigPath(l.in.ProjectID), l.in.ProjectID)
	}
	slices.SortFunc(l.deployments, func(a, b deployment) int {
		return cmp.Or(naturally(a.name, b.name), strings.Compare(a.cluster.ID, b.cluster.ID))
	})
	return nil
}

// notSelected says why a cluster that was asked for is not in the configuration.
func (l *processListing) notSelected(ctx context.Context, id string) error {
	at := slices.IndexFunc(l.clusters, func(c opsmanager.Cluster) bool { return strings.EqualFold(c.ID, id) })
	if at < 0 {
		err := l.retryTransient(ctx, func() error {
			_, err := l.client.Cluster(ctx, l.in.ProjectID, id)
			return err
		})
		if err != nil {
			return err
		}
		return l.unexpectedTopology(id, "it is missing from the project's cluster list")
	}
	switch cluster := l.clusters[at]; {
	case !cluster.IsTopLevel():
		return l.unexpectedTopology(cmp.Or(cluster.ReplicaSetName, cluster.ClusterName, id), "it is a part of a sharded cluster; use the ID of the sharded cluster, which keyturn clusters lists")
	default:
		return permanent(ErrorNotAutomated, "GET %s: the automation configuration has no process of cluster %q (%s), so Ops Manager cannot rotate its keys; add the deployment to automation, or leave out this clusterId",
			opsmanager.AutomationConfigPath(l.in.ProjectID), cmp.Or(cluster.ClusterName, cluster.ReplicaSetName), cluster.ID)
	}
}

func (l *processListing) unexpectedTopology(name, problem string) error {
	return permanent(ErrorUnexpectedTopology, "GET %s: deployment %q: %s; nothing was rotated; check the project's deployment in Ops Manager",
		opsmanager.AutomationConfigPath(l.in.ProjectID), name, problem)
}

// joinedDeployment is a deployment of the configuration and the cluster that Ops
// Manager lists for it.
type joinedDeployment struct {
	deployment
	// problem is why the join is not certain; "" = it is.
	problem string
}

// join groups the replica sets of the configuration to deployments.
func (l *processListing) join() (all []joinedDeployment) {
	sets := map[string]opsmanager.AutomatedReplicaSet{}
	for _, set := range l.config.topology.ReplicaSets {
		sets[set.ID] = set
	}
	sharded := map[string]bool{}
	for _, cluster := range l.config.topology.ShardedClusters {
		joined := joinedDeployment{deployment: deployment{name: cluster.Name}}
		for _, shard := range cluster.Shards {
			if shard.ReplicaSet != cluster.ConfigServer { // a config shard is one, and goes last
				l.addSet(&joined, sets, shard.ReplicaSet, RoleShard)
			}
			sharded[shard.ReplicaSet] = true
		}
		slices.SortStableFunc(joined.sets, func(a, b deployedSet) int { return naturally(a.id, b.id) })
		l.addSet(&joined, sets, cluster.ConfigServer, RoleConfigServer)
		sharded[cluster.ConfigServer] = true
		l.addCluster(&joined)
		all = append(all, joined)
	}
	for _, set := range l.config.topology.ReplicaSets {
		if sharded[set.ID] {
			continue
		}
		joined := joinedDeployment{deployment: deployment{name: set.ID}}
		l.addSet(&joined, sets, set.ID, RoleReplicaSet)
		l.addCluster(&joined)
		all = append(all, joined)
	}
	return all
}

// addProblem keeps the first problem.
func (j *joinedDeployment) addProblem(format string, args ...any) {
	if j.problem == "" {
		j.problem = fmt.Sprintf(format, args...)
	}
}

// addSet adds a replica set with its members, in the order of the configuration.
func (l *processListing) addSet(to *joinedDeployment, sets map[string]opsmanager.AutomatedReplicaSet, id string, role Role) {
	from, found := sets[id]
	if !found {
		to.addProblem("the automation configuration has no replica set %q, which one of its sharded clusters names", nameList([]string{id}))
		return
	}
	set := deployedSet{id: id, role: role}
	for _, member := range from.Members {
		process, found := l.config.processes[member.Process]
		if !found {
			to.addProblem("replica set %q has a member that is none of the processes: %s", id, nameList([]string{member.Process}))
			continue
		}
		set.members = append(set.members, deployedMember{process, member.ArbiterOnly})
	}
	to.sets = append(to.sets, set)
}

// addCluster finds the cluster that has the deployment's snapshots: of a sharded
// one, that with the display name of its shards. Nothing else links them.
func (l *processListing) addCluster(to *joinedDeployment) {
	for _, set := range to.sets {
		var parts []opsmanager.Cluster
		for _, c := range l.clusters {
			if c.ReplicaSetName == set.id && !c.IsSharded() {
				parts = append(parts, c)
			}
		}
		if len(parts) != 1 {
			to.addProblem("expected one cluster with the replica set name %q in the project's cluster list, found %d", set.id, len(parts))
			continue
		}
		found := parts[0]
		if set.role != RoleReplicaSet {
			var parents []opsmanager.Cluster
			for _, c := range l.clusters {
				if c.IsSharded() && c.ClusterName == found.ClusterName && c.ClusterName != "" {
					parents = append(parents, c)
				}
			}
			if len(parents) != 1 {
				to.addProblem("expected one sharded cluster of the name %q in the project's cluster list, found %d", found.ClusterName, len(parents))
				continue
			}
			found = parents[0]
		}
		switch {
		case to.cluster.ID == "":
			to.cluster, to.name = found, cmp.Or(found.ClusterName, to.name)
		case !strings.EqualFold(to.cluster.ID, found.ID):
			to.addProblem("its replica sets belong to two clusters in the project's cluster list, %s and %s", to.cluster.ID, found.ID)
		}
	}
	if to.cluster.ID != "" && !opsmanager.ValidID(to.cluster.ID) {
		to.addProblem("the id of its cluster in the project's cluster list is not 24 hex digits")
	}
}

// naturally compares names so that "shard-9" goes before "shard-10".
func naturally(a, b string) int {
	switch {
	case natural.Less(a, b):
		return -1
	case natural.Less(b, a):
		return 1
	default:
		return strings.Compare(a, b)
	}
}

// refusal is a reason not to begin a rotation, with the processes that it is about.
type refusal struct {
	errorType ErrorType
	about     []string
	// what is the message's verb phrase, and advice what to do.
	request, what, advice string
}

// check returns the first refusal. The order is that of how much else they make
// pointless.
func (l *processListing) check() error {
	if err := l.checkProject(); err != nil {
		return err
	}
	config, status, hosts := opsmanager.AutomationConfigPath(l.in.ProjectID), opsmanager.AutomationStatusPath(l.in.ProjectID), opsmanager.HostsPath(l.in.ProjectID)
	refusals := []*refusal{
		{errorType: ErrorNotAutomated, request: config, what: "not changed by automation, because they are in manual mode",
			advice: "end the manual mode in the process's settings"},
		{errorType: ErrorEncryptionOff, request: config, what: "not encrypted at rest with a master key in a KMIP server",
			advice: "there is no key to rotate: enable KMIP encryption for every member of the cluster, or leave the cluster out of clusterIds"},
		{errorType: ErrorKeyIdentifierPinned, request: config, what: "bound to one key by security.kmip.keyIdentifier, so a rotation would not replace it",
			advice: "remove keyIdentifier from the settings of the processes first"},
		{errorType: ErrorUnexpectedTopology, request: config, what: "set to a lastKmipMasterKeyRotation that is not a time",
			advice: "correct the value: the time of a rotation must be later"},
		{errorType: ErrorClockSkew, request: config, what: "set to a lastKmipMasterKeyRotation more than " + Duration(maxSkew).String() + " in the future",
			advice: "correct the clock of whoever has published it, and wait until that time, or correct the value: the time of a rotation must be later"},
		{errorType: ErrorMemberDown, request: hosts, what: "not running as members of their replica set",
			advice: "start them, and wait until Ops Manager shows them as PRIMARY, SECONDARY or ARBITER: a rotation restarts one member at a time and needs the others"},
		{errorType: ErrorNotInGoalState, request: status, what: fmt.Sprintf("not at goal version %d of the automation configuration", l.goal),
			advice: "wait until the deployment in progress has ended, or correct the error that the agent reports"},
	}
	byType := map[ErrorType]*refusal{}
	for _, r := range refusals {
		byType[r.errorType] = r
	}
	for _, d := range l.deployments {
		for _, set := range d.sets {
			for _, member := range set.members {
				for errorType, detail := range l.problemsOf(member) {
					about := member.Name
					if detail != "" {
						about += " (" + detail + ")"
					}
					byType[errorType].about = append(byType[errorType].about, about)
				}
			}
		}
	}
	for _, r := range refusals {
		if len(r.about) > 0 {
			return permanentWith(FailureDetails{KeysRead: l.countTargets()}, r.errorType, "GET %s: these processes are %s: %s; nothing was sent; %s", r.request, r.what, nameList(r.about), r.advice)
		}
	}
	return nil
}

// countTargets is the number of processes that have a key.
func (l *processListing) countTargets() (n int) {
	for _, d := range l.deployments {
		for _, set := range d.sets {
			for _, member := range set.members {
				if member.isTarget() {
					n++
				}
			}
		}
	}
	return n
}

// checkProject checks what is about the whole project.
func (l *processListing) checkProject() error {
	if least, most, known := l.client.ClockOffset(); known {
		if offset, differs := beyondSkew(least, most); differs {
			return l.clockSkew("the worker's", offset)
		}
		// Temporal's clock is that of the workflow, which chooses the time.
		now := time.Now()
		temporalAhead := l.serverTime(now).Sub(now)
		if offset, differs := beyondSkew(least-temporalAhead, most-temporalAhead); differs {
			return l.clockSkew("Temporal's", offset)
		}
	}
	if l.feature.IsExternallyManaged() {
		return permanent(ErrorExternallyManaged, "GET %s: %s manages project %s, and Ops Manager refuses changes by others (policy EXTERNALLY_MANAGED_LOCK); nothing was sent; rotate the keys through that system; do not remove the policy",
			opsmanager.ControlledFeaturePath(l.in.ProjectID), cmp.Or(l.feature.System, "another system"), l.in.ProjectID)
	}
	total := 0
	for _, d := range l.deployments {
		for _, set := range d.sets {
			total += len(set.members)
		}
	}
	if total > maxProcesses {
		return permanent(ErrorUnexpectedTopology, "GET %s: there are %d processes; one rotation has at most %d: name some of the clusters in clusterIds",
			opsmanager.AutomationConfigPath(l.in.ProjectID), total, maxProcesses)
	}
	return nil
}

// beyondSkew reports whether clocks certainly differ by more than maxSkew, where they
// differ by something between least and most.
func beyondSkew(least, most time.Duration) (offset time.Duration, differs bool) {
	switch {
	case least > maxSkew:
		return least, true
	case most < -maxSkew:
		return most, true
	default:
		return 0, false
	}
}

func (l *processListing) clockSkew(whose string, offset time.Duration) error {
	return permanent(ErrorClockSkew, "GET %s: the time of Ops Manager's responses (header Date) and %s differ by at least %s, more than %s; nothing was sent; correct the clock that is wrong: agents rotate a key only if the published time is later than the last one",
		opsmanager.AutomationConfigPath(l.in.ProjectID), whose, Duration(offset.Abs().Round(time.Second)), Duration(maxSkew))
}

// problemsOf are the reasons not to begin with this member, and what to say of each.
func (l *processListing) problemsOf(member deployedMember) map[ErrorType]string {
	problems := map[ErrorType]string{}
	if member.ManualMode {
		problems[ErrorNotAutomated] = ""
	}
	switch {
	case member.isTarget():
		l.addTargetProblems(problems, member)
	case !member.arbiter:
		problems[ErrorEncryptionOff] = ""
	}
	if down := l.downReason(member); down != "" {
		problems[ErrorMemberDown] = down
	}
	status, found := l.status[member.Name]
	switch {
	case !found:
		problems[ErrorNotInGoalState] = "its agent reports nothing"
	case status.ErrorCode != 0:
		problems[ErrorNotInGoalState] = agentError(status)
	case !status.IsAtGoal(l.goal):
		problems[ErrorNotInGoalState] = fmt.Sprintf("at version %d", status.AchievedVersion)
	}
	return problems
}

func (l *processListing) addTargetProblems(problems map[ErrorType]string, member deployedMember) {
	if member.KeyIdentifierPinned {
		problems[ErrorKeyIdentifierPinned] = ""
	}
	if member.LastRotation == "" {
		return
	}
	last, ok := opsmanager.ParseRotationTime(member.LastRotation)
	switch {
	case !ok:
		problems[ErrorUnexpectedTopology] = member.LastRotation
	case last.Sub(l.now) > maxSkew:
		problems[ErrorClockSkew] = member.LastRotation
	}
}

// downReason is why a member does not count as running; "" = it does.
func (l *processListing) downReason(member deployedMember) string {
	host, found := l.hosts[hostKey(hostOf(member.AutomatedProcess))]
	switch {
	case member.Disabled:
		return "disabled in the automation configuration"
	case !found:
		return "Ops Manager monitors no " + hostOf(member.AutomatedProcess)
	case host.Deactivated:
		return "its monitoring is deactivated"
	case !slices.Contains([]string{"PRIMARY", "SECONDARY", "ARBITER"}, host.ReplicaStateName):
		return "state " + cmp.Or(host.ReplicaStateName, "unknown")
	case !host.LastPing.IsZero() && l.now.Sub(host.LastPing) > maxPingAge:
		return "last reported at " + host.LastPing.Format(time.RFC3339)
	default:
		return ""
	}
}

// agentError is what an agent reports of its process.
func agentError(status opsmanager.ProcessStatus) string {
	text := fmt.Sprintf("agent's error %d", status.ErrorCode)
	if status.ErrorText != "" {
		text += ": " + status.ErrorText
	}
	return text
}

// result has everything but the keys.
func (l *processListing) result() ListProcessesResult {
	result := ListProcessesResult{
		ServiceVersion: l.client.ServiceVersion(), ConfigVersion: l.config.Version(),
		ServerTime: l.now.UTC().Truncate(time.Second), Processes: []Process{},
	}
	inSets := map[string]bool{}
	for _, set := range l.config.topology.ReplicaSets {
		for _, member := range set.Members {
			inSets[member.Process] = true
		}
	}
	for _, process := range l.config.topology.Processes {
		last, ok := opsmanager.ParseRotationTime(process.LastRotation)
		// One that is no target may be further in the future.
		if ok && last.Sub(l.now) <= maxSkew && last.After(result.LatestRotation) {
			result.LatestRotation = last
		}
		alone := process.TypeName == opsmanager.ProcessMongod && !inSets[process.Name] && deployedMember{process, false}.isTarget()
		if alone && len(l.in.ClusterIDs) == 0 && len(result.LeftOut) < maxLeftOut {
			result.LeftOut = append(result.LeftOut, process.Name)
		}
	}
	for _, d := range l.deployments {
		for _, set := range d.sets {
			for _, member := range set.members {
				if member.isTarget() {
					result.Processes = append(result.Processes, Process{
						Process: member.Name, Host: hostOf(member.AutomatedProcess), ReplicaSet: set.id,
						ClusterID: d.cluster.ID, ClusterName: d.name, Role: set.role, PreviousRotateAt: member.LastRotation,
					})
				}
			}
		}
	}
	return result
}

// addKeys adds what the snapshots of the clusters say.
func (l *processListing) addKeys(ctx context.Context, result *ListProcessesResult) error {
	known := make([]map[string]*setKeys, len(l.deployments))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallelSnapshotReads)
	for i, d := range l.deployments {
		group.Go(func() error {
			snapshots, err := l.readSnapshots(groupCtx, d.cluster.ID, len(d.sets))
			known[i] = keysOfSets(snapshots)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	byCluster := map[string]map[string]*setKeys{}
	for i, d := range l.deployments {
		byCluster[d.cluster.ID] = known[i]
		for _, set := range d.sets {
			if keys := known[i][set.id]; keys != nil {
				result.EarlierKeys = append(result.EarlierKeys, EarlierKeys{d.cluster.ID, set.id, keys.newest(maxEarlierKeys)})
			}
		}
	}
	for i := range result.Processes {
		process := &result.Processes[i]
		if keys := byCluster[process.ClusterID][process.ReplicaSet]; keys != nil {
			last := keys.ofHost(process.Host)
			if last != nil && showsLastKey(last.created, process.PreviousRotateAt, l.hosts[hostKey(process.Host)].LastRestart) {
				process.PreviousKeyUUID, process.PreviousSnapshotID = last.key, last.snapshot
			}
		}
	}
	return nil
}
