package simulator

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"
)

// DeploymentOptions are the settings of a deployment: the clusters of one project
// that Ops Manager automates, with KMIP encryption at rest.
type DeploymentOptions struct {
	// ProjectID is DefaultProjectID if it is empty. A project has one deployment.
	ProjectID string
	// Clusters are in the order of the configuration.
	Clusters []DeployedCluster
	// MemberTime is how long a member takes to rotate its key and restart; 0 means
	// 10 ms. Agent.Takes overrides it for one member.
	MemberTime time.Duration
	// DocumentSize is how large the configuration is at least, in bytes; the rest is
	// filled with fields that nobody knows. 0 means no more than it needs.
	DocumentSize int
	// WithoutNoSecrets leaves out the path automationConfig/noSecrets, as versions
	// before 8.0.12 and 7.0.18 do.
	WithoutNoSecrets bool
	// WholeSeconds leaves the milliseconds out of the times of restarts, pings and
	// snapshots. A member that restarts within a second of another event then
	// seems to have restarted before it.
	WholeSeconds bool
	// SnapshotEvery takes snapshots of every cluster at this interval, which expire
	// after 48 further ones; 0 means only the first one, which each cluster has from
	// the beginning, and those of TakeMemberSnapshot.
	SnapshotEvery time.Duration
}

// DeployedCluster is a replica set or a sharded cluster of a deployment.
type DeployedCluster struct {
	// Name is the display name. The replica sets are named as those of
	// AddReplicaSet and AddShardedCluster, and the processes after them: orders-0-1
	// is member 1 of shard orders-0.
	Name string
	// Shards is their number; 0 means a plain replica set.
	Shards int
	// Members is the number of members of each replica set; 0 means 3. Arbiters are
	// further ones, without data; their processes have a key, too.
	Members, Arbiters int
	// Mongos is the number of mongos processes of a sharded cluster.
	Mongos int
}

// Deployment is a deployment of a simulator. All its methods may be called at any
// time from any goroutine; they panic at the name of a process or cluster that the
// deployment does not have.
type Deployment struct {
	s         *Simulator
	ProjectID string
	// ClusterIDs are those of the clusters, in the order of the options: of a
	// sharded cluster, the parent's.
	ClusterIDs []string
}

// Process is a process of a deployment as it is now.
type Process struct {
	Name string
	// Host is hostname:port.
	Host       string
	ReplicaSet string
	// ClusterID is that of the replica set, ParentID that of the sharded cluster
	// which it is a part of, or empty.
	ClusterID, ParentID string
	Primary, Arbiter    bool
	// Mongos processes have no key.
	Mongos bool
	// Key is the master key that it uses now.
	Key         string
	LastRestart time.Time
}

const (
	defaultMembers    = 3
	defaultMemberTime = 10 * time.Millisecond
	firstPort         = 27017
	// deployedAge is how long ago the processes of a new deployment were started.
	deployedAge = 30 * 24 * time.Hour
)

// deploymentRecord is all that is kept of a deployment.
type deploymentRecord struct {
	Options DeploymentOptions `json:"options"`
	// Text is the automation configuration with its secrets.
	Text     []byte      `json:"text"`
	Version  int64       `json:"version"`
	Conduct  Conduct     `json:"conduct"`
	Members  []*member   `json:"members"`
	Goal     goal        `json:"goal"`
	NextGoal *goal       `json:"nextGoal,omitempty"`
	Events   []event     `json:"events"`
	NextShot time.Time   `json:"nextSnapshot,omitzero"`
	Lock     lockSetting `json:"lock"`
	// served are the texts that were last answered to readers, the latest last.
	served []servedText
	// previous is the text before the last publication.
	previous []byte
	// times and pinned are what Text says of the processes, by their names: the time
	// as JSON, "" for none, and whether it names a key.
	times  map[string]string
	pinned map[string]bool
	// hidden is Text without its secrets, once somebody has read it.
	hidden []byte
	// wake calls advance when something is due.
	wake *time.Timer
}

// AddDeployment adds the clusters of a deployment to a project, with their
// processes, one completed snapshot of each cluster, and the automation
// configuration. It panics if the project has a deployment.
func (s *Simulator) AddDeployment(o DeploymentOptions) *Deployment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.ProjectID == "" {
		o.ProjectID = DefaultProjectID
	}
	if s.data.Deployments[o.ProjectID] != nil {
		panic("simulator: project " + o.ProjectID + " has a deployment already")
	}
	o.Clusters = slices.Clone(o.Clusters)
	now := s.now()
	d := &deploymentRecord{Options: o, Version: firstVersion, Conduct: Conduct{VersionStep: 1}}
	if s.data.project(o.ProjectID) == nil {
		s.data.putProject(Project{ID: o.ProjectID})
	}
	if s.data.Deployments == nil {
		s.data.Deployments = map[string]*deploymentRecord{}
	}
	s.data.Deployments[o.ProjectID] = d
	made := &Deployment{s: s, ProjectID: o.ProjectID}
	for _, cluster := range o.Clusters {
		made.ClusterIDs = append(made.ClusterIDs, s.addDeployedCluster(d, cluster, now))
	}
	d.setText(newConfiguration(d))
	d.Goal = goal{Version: d.Version, At: now.Add(-deployedAge), Times: d.times}
	for _, m := range d.Members {
		m.Handled, m.Achieved = d.Goal.Times[m.Name], d.Version
	}
	for _, id := range made.ClusterIDs {
		s.takeMemberSnapshot(d, id, MemberSnapshot{Created: now.Add(-time.Hour)})
	}
	if o.SnapshotEvery > 0 {
		d.NextShot = now.Add(o.SnapshotEvery)
	}
	s.wakeLater(o.ProjectID)
	s.mustSave()
	return made
}

// Deployment gives the deployment of a project, or nil.
func (s *Simulator) Deployment(projectID string) *Deployment {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.data.Deployments[projectID]
	if d == nil {
		return nil
	}
	found := &Deployment{s: s, ProjectID: projectID}
	for _, record := range s.data.clustersOf(projectID) {
		if record.Automated && record.IsTopLevel() {
			found.ClusterIDs = append(found.ClusterIDs, record.ID)
		}
	}
	return found
}

func (s *Simulator) addDeployedCluster(d *deploymentRecord, of DeployedCluster, now time.Time) (id string) {
	add := func(c Cluster) Cluster {
		c.ProjectID, c.ClusterName, c.Automated = d.Options.ProjectID, of.Name, true
		return s.addCluster(c)
	}
	if of.Shards == 0 {
		c := add(Cluster{ReplicaSetName: of.Name, TypeName: TypeReplicaSet})
		s.addMembers(d, of, c, now)
		return c.ID
	}
	parent := add(Cluster{TypeName: TypeShardedReplicaSet})
	for i := range of.Shards {
		name := of.Name + "-" + strconv.Itoa(i)
		s.addMembers(d, of, add(Cluster{ShardName: name, ReplicaSetName: name, TypeName: TypeReplicaSet, ParentID: parent.ID}), now)
	}
	config := add(Cluster{ReplicaSetName: of.Name + "-config", TypeName: TypeConfigServerReplicaSet, ParentID: parent.ID})
	s.addMembers(d, DeployedCluster{Members: of.Members}, config, now)
	for i := range of.Mongos {
		d.addMember(&member{Name: fmt.Sprintf("%s-mongos-%d", of.Name, i), ClusterID: parent.ID, Mongos: true, LastRestart: now.Add(-deployedAge)})
	}
	return parent.ID
}

func (s *Simulator) addMembers(d *deploymentRecord, of DeployedCluster, c Cluster, now time.Time) {
	count := of.Members
	if count == 0 {
		count = defaultMembers
	}
	for i := range count + of.Arbiters {
		key, err := s.options.NewKey()
		if err != nil {
			panic("simulator: the key of a process of " + c.ReplicaSetName + " cannot be made: " + err.Error())
		}
		d.addMember(&member{
			Name: c.ReplicaSetName + "-" + strconv.Itoa(i), ReplicaSet: c.ReplicaSetName, ClusterID: c.ID, ParentID: c.ParentID,
			Primary: i == 0, Arbiter: i >= count, Keys: []string{key}, LastRestart: now.Add(-deployedAge),
		})
	}
}

func (d *deploymentRecord) addMember(m *member) {
	m.Hostname, m.Port = m.Name+".db.example.net", firstPort+len(d.Members)
	d.Members = append(d.Members, m)
}

func (m *member) host() string { return net.JoinHostPort(m.Hostname, strconv.Itoa(m.Port)) }

func (m *member) key() string {
	if len(m.Keys) == 0 {
		return ""
	}
	return m.Keys[len(m.Keys)-1]
}

func (d *deploymentRecord) find(name string) (m *member, there bool) {
	at := slices.IndexFunc(d.Members, func(m *member) bool { return m.Name == name })
	if at < 0 {
		return nil, false
	}
	return d.Members[at], true
}

func (d *deploymentRecord) member(name string) *member {
	m, there := d.find(name)
	if !there {
		panic("simulator: the deployment has no process " + name)
	}
	return m
}

// locked runs a function under the lock, once all is done that was due, and keeps
// what it changes.
func (d *Deployment) locked(do func(*deploymentRecord)) {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	record := d.s.data.Deployments[d.ProjectID]
	d.s.advance(d.ProjectID)
	do(record)
	d.s.advance(d.ProjectID)
	d.s.mustSave()
}

// Processes gives the processes in the order of the configuration.
func (d *Deployment) Processes() (processes []Process) {
	d.locked(func(record *deploymentRecord) {
		for _, m := range record.Members {
			processes = append(processes, Process{
				Name: m.Name, Host: m.host(), ReplicaSet: m.ReplicaSet, ClusterID: m.ClusterID, ParentID: m.ParentID,
				Primary: m.Primary, Arbiter: m.Arbiter, Mongos: m.Mongos, Key: m.key(), LastRestart: m.LastRestart,
			})
		}
	})
	return processes
}

// Process gives one process.
func (d *Deployment) Process(name string) Process {
	for _, p := range d.Processes() {
		if p.Name == name {
			return p
		}
	}
	panic("simulator: the deployment has no process " + name)
}

// Members gives the names of the processes of a replica set, in the order of the
// configuration.
func (d *Deployment) Members(replicaSet string) (names []string) {
	for _, p := range d.Processes() {
		if p.ReplicaSet == replicaSet {
			names = append(names, p.Name)
		}
	}
	return names
}

// Text is the automation configuration as it is now, with its secrets.
func (d *Deployment) Text() (text string) {
	d.locked(func(record *deploymentRecord) { text = string(record.Text) })
	return text
}

// Version is that of the automation configuration.
func (d *Deployment) Version() (version int64) {
	d.locked(func(record *deploymentRecord) { version = record.Version })
	return version
}

// RotationTimes gives the time of each process in the configuration, as JSON; ""
// for none.
func (d *Deployment) RotationTimes() (times map[string]string) {
	d.locked(func(record *deploymentRecord) { times = maps.Clone(record.times) })
	return times
}

// SetAgent says how the agent of a process behaves from now on. A step that it has
// begun ends as it would have.
func (d *Deployment) SetAgent(process string, a Agent) {
	d.locked(func(record *deploymentRecord) {
		m := record.member(process)
		if a.isSilent() && a.SilentSince.IsZero() {
			a.SilentSince = d.s.now()
		}
		m.Agent = a
		if a.ErrorCode == 0 {
			m.ErrorCode, m.ErrorText = 0, ""
		}
	})
}

// SetConduct says how Ops Manager behaves from now on. A zero VersionStep means 1.
func (d *Deployment) SetConduct(c Conduct) {
	if c.VersionStep == 0 {
		c.VersionStep = 1
	}
	c.Modifies = slices.Clone(c.Modifies)
	d.locked(func(record *deploymentRecord) {
		unfrozen := record.Conduct.GoalFrozen && !c.GoalFrozen
		record.Conduct = c
		if unfrozen && record.NextGoal != nil {
			record.NextGoal.At = d.s.now()
		}
	})
}

// Publish publishes a configuration that somebody else has made: change gets the
// text with its secrets, and returns another one, or the same. See SetProcessField,
// DropRotationTimes and SetRotationTime for changes.
func (d *Deployment) Publish(by string, change func(text []byte) []byte) (version int64) {
	d.locked(func(record *deploymentRecord) {
		d.s.publishAs(record, by, change(slices.Clone(record.Text)))
		version = record.Version
	})
	return version
}

// Edit changes the configuration without publishing it: as though it had always
// been so. The agents know it at once.
func (d *Deployment) Edit(change func(text []byte) []byte) {
	d.locked(func(record *deploymentRecord) { record.edit(change) })
}

// Act does what a rival does within a request, now.
func (d *Deployment) Act(r Rival) {
	r.When = RivalBefore // it is of no importance
	if err := r.validate(); err != nil {
		panic("simulator: " + err.Error())
	}
	d.locked(func(record *deploymentRecord) { d.s.act(record, &r) })
}

// SetProcessField is a change of one field of a process, for example
// SetProcessField("orders-0-1", `"7"`, "args2_6", "security", "kmip",
// "keyIdentifier"). The value is JSON; an empty one removes the field.
func SetProcessField(process, value string, path ...string) func(text []byte) []byte {
	return func(text []byte) []byte {
		whole := pathOfProcess(text, process, path...)
		if value == "" {
			return without(text, whole...)
		}
		return withValue(text, value, whole...)
	}
}

// SetField is a change of a field outside the processes.
func SetField(value string, path ...string) func(text []byte) []byte {
	return func(text []byte) []byte {
		if value == "" {
			return without(text, path...)
		}
		return withValue(text, value, path...)
	}
}

// SetRotationTime is a change of the time of processes: of all that have a
// replica set if none is named.
func SetRotationTime(at time.Time, processes ...string) func(text []byte) []byte {
	return func(text []byte) []byte {
		return changeTimes(text, strconv.Quote(at.UTC().Format(time.RFC3339)), processes)
	}
}

// DropRotationTimes is a change that removes the time of processes: of all if none
// is named.
func DropRotationTimes(processes ...string) func(text []byte) []byte {
	return func(text []byte) []byte { return changeTimes(text, "", processes) }
}

func changeTimes(text []byte, value string, processes []string) []byte {
	for _, p := range processesOf(text) {
		kind, _ := find(text, pathOfProcess(text, p.name, "processType")...)
		isMongod := string(text[kind.from:kind.to]) == `"mongod"`
		if slices.Contains(processes, p.name) || (len(processes) == 0 && isMongod) {
			text = SetProcessField(p.name, value, rotationField)(text)
		}
	}
	return text
}
