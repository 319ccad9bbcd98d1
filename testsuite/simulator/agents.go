package simulator

import (
	"encoding/json"
	"strconv"
	"time"
)

// Agent says how the agent of one process behaves; the zero value works as documented:
// once the goal has a later time for its process than the one that it has
// acted on, it waits for its turn in the replica set, which has one member at a
// time and the primary last, makes a new key and restarts the process.
type Agent struct {
	// Takes is how long that lasts; 0 means DeploymentOptions.MemberTime.
	Takes time.Duration `json:"takes,omitempty"`
	// Waits is how long the agent takes to notice a new goal. The other members
	// don't wait for it meanwhile.
	Waits time.Duration `json:"waits,omitempty"`
	// Silent agents do nothing, report nothing, and don't ping. The other members
	// don't wait for one.
	Silent bool `json:"silent,omitempty"`
	// SilentSince is when a silent agent was last heard of; zero means the time of
	// SetAgent.
	SilentSince time.Time `json:"silentSince,omitzero"`
	// Down: the process is down as well, and its agent is silent.
	Down bool `json:"down,omitempty"`
	// ErrorCode, with ErrorText, is reported when it is the agent's turn: it is
	// stuck, and the members after it wait. Another ErrorCode, or 0, lets it go on.
	ErrorCode int64  `json:"errorCode,omitempty"`
	ErrorText string `json:"errorText,omitempty"`
	// WronglyAtGoal agents report a new goal as reached at once, before they act:
	// with Waits, so much earlier; with Silent, they never act.
	WronglyAtGoal bool `json:"wronglyAtGoal,omitempty"`
	// KeepsKey agents restart the process with the key that it has.
	KeepsKey bool `json:"keepsKey,omitempty"`
	// Unmonitored processes are missing from the hosts, Unreported ones from the
	// automation status.
	Unmonitored bool `json:"unmonitored,omitempty"`
	Unreported  bool `json:"unreported,omitempty"`
	// RotatesAgain agents act on every new goal that has a time for the process, be
	// it the one that they have acted on.
	RotatesAgain bool `json:"rotatesAgain,omitempty"`
}

// Conduct says how Ops Manager behaves with the configurations of a project.
type Conduct struct {
	// VersionStep is how much a publication adds to the version.
	VersionStep int64 `json:"versionStep"`
	// GoalFrozen: goalVersion stays as it is, and no agent hears of a publication.
	GoalFrozen bool `json:"goalFrozen,omitempty"`
	// GoalAfter is how long after a publication goalVersion moves.
	GoalAfter time.Duration `json:"goalAfter,omitempty"`
	// RefuseStale: a PUT whose text has another version than the project gets 409
	// AUTOMATION_CONFIG_CONCURRENT_MODIFICATION. Otherwise the later one wins.
	RefuseStale bool `json:"refuseStale,omitempty"`
	// Modifies are Ops Manager's own changes of what a PUT sends, in this order.
	Modifies []Modification `json:"modifies,omitempty"`
	// WithoutMachineID and WithoutKeyID leave these fields out of the snapshots that
	// are taken, as versions before 8.0.2 do with the first.
	WithoutMachineID bool `json:"withoutMachineId,omitempty"`
	WithoutKeyID     bool `json:"withoutKeyId,omitempty"`
	// WithoutLastRestart leaves that out of the hosts.
	WithoutLastRestart bool `json:"withoutLastRestart,omitempty"`
}

// Modification is a change that Ops Manager makes to what it is sent.
type Modification string

// Modifications.
const (
	ModifyAddsFields    Modification = "addsFields"    // to the whole and to every process
	ModifyReformatsTime Modification = "reformatsTime" // rotation times get milliseconds and another zone's form
	ModifyNumbersTime   Modification = "numbersTime"   // rotation times become milliseconds since 1970
	ModifyReorders      Modification = "reorders"      // decodes and encodes the whole: names in another order, numbers in another form
	ModifyDropsTimes    Modification = "dropsTimes"    // leaves all rotation times out
)

// MemberRotation is a new master key of one process.
type MemberRotation struct {
	At        time.Time `json:"at"`
	ProjectID string    `json:"projectId"`
	Process   string    `json:"process"`
	// Time is the time in the configuration that the agent acted on, as JSON.
	Time        string `json:"time"`
	PreviousKey string `json:"previousKey"`
	NewKey      string `json:"newKey"`
}

// member is a process and its agent.
type member struct {
	Name       string `json:"name"`
	Hostname   string `json:"hostname"`
	Port       int    `json:"port"`
	ReplicaSet string `json:"replicaSet,omitempty"`
	ClusterID  string `json:"clusterId"`
	ParentID   string `json:"parentId,omitempty"`
	Primary    bool   `json:"primary,omitempty"`
	Arbiter    bool   `json:"arbiter,omitempty"`
	Mongos     bool   `json:"mongos,omitempty"`

	Agent Agent    `json:"agent"`
	Keys  []string `json:"keys,omitempty"`
	// Handled is the time that was acted on last, and HandledGoal the version.
	Handled     string    `json:"handled,omitempty"`
	HandledGoal int64     `json:"handledGoal,omitempty"`
	Achieved    int64     `json:"achieved"`
	LastRestart time.Time `json:"lastRestart"`
	ErrorCode   int64     `json:"errorCode,omitempty"`
	ErrorText   string    `json:"errorText,omitempty"`

	// Acting members are restarting, on ActingFor, until DoneAt.
	Acting    bool      `json:"acting,omitempty"`
	ActingFor string    `json:"actingFor,omitempty"`
	DoneAt    time.Time `json:"doneAt,omitzero"`
	// TriedAt is when a restart failed.
	TriedAt time.Time `json:"triedAt,omitzero"`
}

func (a Agent) isSilent() bool { return a.Silent || a.Down }

// goal is a version that the agents are to reach.
type goal struct {
	Version int64             `json:"version"`
	At      time.Time         `json:"at"`
	Times   map[string]string `json:"times"`
}

const (
	// keyErrorCode is what an agent reports whose mongod can't make a key.
	keyErrorCode = 143
	keyErrorText = "Failed to start mongod: the KMIP server cannot be reached"
	// retryAfter is how long after a failed restart the agent tries again.
	retryAfter = time.Second
)

// now is the simulated server's clock.
func (s *Simulator) now() time.Time {
	if s.options.Now != nil {
		return s.options.Now()
	}
	return time.Now()
}

// advance does what was due in a project, in the order of its times. The lock is
// held.
func (s *Simulator) advance(projectID string) {
	d := s.data.Deployments[projectID]
	if d == nil {
		return
	}
	now := s.now()
	changed := false
	for {
		due, acts := s.nextSteps(d)
		if len(acts) == 0 || due.After(now) {
			break
		}
		for _, act := range acts {
			act(due)
		}
		changed = true
	}
	if changed {
		// Nobody is there to hear of an error; the next change writes this one, too.
		_ = s.save()
		s.announce()
	}
	s.wakeLater(projectID)
}

// wakeLater has advance called when the next step is due, so that those who await
// it need not ask. The lock is held.
func (s *Simulator) wakeLater(projectID string) {
	d := s.data.Deployments[projectID]
	if d.wake != nil {
		d.wake.Stop()
	}
	due, acts := s.nextSteps(d)
	if len(acts) == 0 {
		return
	}
	d.wake = time.AfterFunc(max(due.Sub(s.now()), time.Millisecond), func() {
		if !s.late.enter() {
			return
		}
		defer s.late.leave()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.data.Deployments[projectID] == d {
			s.advance(projectID)
		}
	})
}

// nextSteps are what happens next without anybody's doing, and when: one step, or
// steps of several replica sets that are due at the same time.
func (s *Simulator) nextSteps(d *deploymentRecord) (due time.Time, acts []func(at time.Time)) {
	consider := func(at time.Time, act func(time.Time)) {
		switch {
		case len(acts) == 0 || at.Before(due):
			due, acts = at, append(acts[:0], act)
		case at.Equal(due):
			acts = append(acts, act)
		}
	}
	for _, t := range d.turns() {
		// The earliest step only: the others of the replica set depend on it.
		if at, act := t.next(s, d); act != nil {
			consider(at, act)
		}
	}
	alone := func(at time.Time, act func(time.Time)) {
		if len(acts) == 0 || !at.After(due) {
			due, acts = at, []func(time.Time){act}
		}
	}
	if !d.NextShot.IsZero() {
		alone(d.NextShot, func(at time.Time) { s.takeScheduledSnapshots(d, at) })
	}
	if d.NextGoal != nil && !d.Conduct.GoalFrozen {
		alone(d.NextGoal.At, func(at time.Time) {
			d.Goal, d.NextGoal = *d.NextGoal, nil
			d.Goal.At = at
		})
	}
	return due, acts
}

// turn is how far a replica set is with its members.
type turn struct {
	members []*member
	// busy: a member restarts, or is stuck.
	busy *member
	// waiting is how many members but the primary want to act and can.
	waiting int
	// since is when the latest member was ready.
	since time.Time
}

// turns gives the replica sets in order. The mongos processes are one, too.
func (d *deploymentRecord) turns() (turns []*turn) {
	byName := map[string]*turn{}
	for _, m := range d.Members {
		t := byName[m.ReplicaSet]
		if t == nil {
			t = &turn{}
			byName[m.ReplicaSet] = t
			turns = append(turns, t)
		}
		t.members = append(t.members, m)
		if m.Acting || m.ErrorCode != 0 {
			t.busy = m
		}
		if !m.Primary && !m.Agent.isSilent() && d.wants(m) {
			t.waiting++
		}
		t.since = latest(t.since, m.LastRestart)
	}
	return turns
}

// next is the next step of one member; nil for nothing.
func (t *turn) next(s *Simulator, d *deploymentRecord) (due time.Time, act func(time.Time)) {
	for _, m := range t.members {
		if at, do := s.nextOf(d, m, t); do != nil && (act == nil || at.Before(due)) {
			due, act = at, do
		}
	}
	return due, act
}

// allows reports whether a member that wants to act may do so: no other member of
// its replica set restarts or is stuck, and the primary goes last.
func (t *turn) allows(m *member) bool {
	if t.busy != nil && t.busy != m {
		return false
	}
	return !m.Primary || t.waiting == 0
}

// nextOf is the next step of one process.
func (s *Simulator) nextOf(d *deploymentRecord, m *member, t *turn) (time.Time, func(time.Time)) {
	noticed := d.Goal.At.Add(m.Agent.Waits)
	switch {
	case m.Acting:
		return m.DoneAt, func(at time.Time) { s.finishRestart(d, m, at) }
	case m.Agent.WronglyAtGoal && m.Achieved != d.Goal.Version:
		return d.Goal.At, func(time.Time) { m.Achieved = d.Goal.Version }
	case m.Agent.isSilent():
		return time.Time{}, nil
	case !d.wants(m):
		if m.Achieved == d.Goal.Version && m.ErrorCode == 0 {
			return time.Time{}, nil
		}
		return noticed, func(time.Time) { m.Achieved, m.ErrorCode, m.ErrorText = d.Goal.Version, 0, "" }
	case !t.allows(m):
		return time.Time{}, nil
	case m.Agent.ErrorCode != 0:
		if m.ErrorCode == m.Agent.ErrorCode && m.ErrorText == m.Agent.ErrorText {
			return time.Time{}, nil
		}
		return noticed, func(time.Time) { m.ErrorCode, m.ErrorText = m.Agent.ErrorCode, m.Agent.ErrorText }
	}
	begin := latest(noticed, t.since)
	if !m.TriedAt.IsZero() {
		begin = latest(begin, m.TriedAt.Add(retryAfter))
	}
	return begin, func(at time.Time) { s.beginRestart(d, m, at) }
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// wants reports whether the goal asks the agent of a process for a rotation.
func (d *deploymentRecord) wants(m *member) bool {
	wanted := d.Goal.Times[m.Name]
	if m.Mongos || wanted == "" {
		return false
	}
	if m.Agent.RotatesAgain && m.HandledGoal != d.Goal.Version && m.Achieved != d.Goal.Version {
		return true
	}
	return later(wanted, m.Handled)
}

// later compares two times in JSON. What is no time asks for nothing.
func later(wanted, handled string) bool {
	if wanted == handled {
		return false
	}
	at, ok := timeOf(wanted)
	former, known := timeOf(handled)
	return ok && (!known || at.After(former))
}

// timeOf reads ISO 8601 or milliseconds.
func timeOf(value string) (time.Time, bool) {
	if ms, err := strconv.ParseInt(value, 10, 64); err == nil {
		return time.UnixMilli(ms), true
	}
	var text string
	if json.Unmarshal([]byte(value), &text) != nil {
		return time.Time{}, false
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05Z0700"} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

func (s *Simulator) beginRestart(d *deploymentRecord, m *member, at time.Time) {
	takes := m.Agent.Takes
	if takes == 0 {
		takes = d.Options.MemberTime
	}
	if takes == 0 {
		takes = defaultMemberTime
	}
	m.Acting, m.ActingFor, m.DoneAt, m.HandledGoal = true, d.Goal.Times[m.Name], at.Add(takes), d.Goal.Version
	m.ErrorCode, m.ErrorText = 0, ""
	if m.Primary {
		d.stepDown(m)
	}
}

// stepDown makes another member the primary, if there is one with data.
func (d *deploymentRecord) stepDown(m *member) {
	for _, other := range d.Members {
		if other != m && other.ReplicaSet == m.ReplicaSet && !other.Arbiter && !other.Agent.Down {
			m.Primary, other.Primary = false, true
			return
		}
	}
}

func (s *Simulator) finishRestart(d *deploymentRecord, m *member, at time.Time) {
	m.Acting = false
	next := m.key()
	if !m.Agent.KeepsKey && !d.pinned[m.Name] {
		made, err := s.options.NewKey()
		if err != nil {
			m.ErrorCode, m.ErrorText, m.TriedAt = keyErrorCode, keyErrorText, s.now()
			return
		}
		s.data.MemberRotations = append(s.data.MemberRotations, MemberRotation{
			At: at, ProjectID: d.Options.ProjectID, Process: m.Name, Time: m.ActingFor, PreviousKey: m.key(), NewKey: made,
		})
		next = made
	}
	if next != m.key() {
		m.Keys = append(m.Keys, next)
	}
	m.Handled, m.LastRestart, m.TriedAt = m.ActingFor, at, time.Time{}
}
