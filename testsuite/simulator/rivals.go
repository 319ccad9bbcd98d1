package simulator

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// RivalTime says when somebody else acts, within a request that meets a fault.
type RivalTime string

// When a rival acts.
const (
	// RivalBefore is before the request has any effect: a GET reads the result, and
	// a PUT overwrites it.
	RivalBefore RivalTime = "before"
	// RivalAfter is after the request's effect and before its answer: a GET's text is
	// already out of date when it arrives.
	RivalAfter RivalTime = "after"
)

// RivalChange is what somebody else does to a project's configuration.
type RivalChange string

// What a rival does.
const (
	RivalTouches     RivalChange = "touches"     // publishes another value of a field that no rotation touches
	RivalSetsTimes   RivalChange = "setsTimes"   // publishes Rival.Time for Rival.Processes
	RivalDropsTimes  RivalChange = "dropsTimes"  // publishes without the times of Rival.Processes
	RivalRestores    RivalChange = "restores"    // publishes what was there before the last publication, as one who had read that
	RivalRepublishes RivalChange = "republishes" // publishes the same text again
	RivalEdits       RivalChange = "edits"       // changes a field without a publication: the version stays
	RivalLocks       RivalChange = "locks"       // locks the project, as the Kubernetes operator does: PUTs get 403
)

var rivalChanges = []RivalChange{
	RivalTouches, RivalSetsTimes, RivalDropsTimes, RivalRestores, RivalRepublishes, RivalEdits, RivalLocks,
}

// Rival is somebody else who changes the configuration of the project that a
// request is about. It does nothing in a project without a deployment.
type Rival struct {
	When   RivalTime   `json:"when"`
	Change RivalChange `json:"change"`
	// By is who publishes; empty means "rival".
	By string `json:"by,omitempty"`
	// Processes are those whose times are changed; none means all mongod processes.
	Processes []string `json:"processes,omitempty"`
	// Time is what RivalSetsTimes sets.
	Time time.Time `json:"time,omitzero"`
}

func (r *Rival) validate() error {
	switch {
	case r == nil:
		return nil
	case r.When != RivalBefore && r.When != RivalAfter:
		return fmt.Errorf("rival.when: there is no %q", r.When)
	case !slices.Contains(rivalChanges, r.Change):
		return fmt.Errorf("rival.change: there is no %q", r.Change)
	case (r.Change == RivalSetsTimes) == r.Time.IsZero():
		return errors.New("rival.time: goes with setsTimes, and with nothing else")
	}
	return nil
}

func (r *Rival) clone() *Rival {
	if r == nil {
		return nil
	}
	copied := *r
	copied.Processes = slices.Clone(r.Processes)
	return &copied
}

// letRivalAct lets the rival of a fault act, if its time has come.
func (s *Simulator) letRivalAct(c *call, f Fault, when RivalTime) {
	if f.Rival == nil || f.Rival.When != when {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.data.Deployments[c.route.projectID]; d != nil {
		s.advance(c.route.projectID)
		s.act(d, f.Rival)
		s.announce()
	}
}

func (s *Simulator) act(d *deploymentRecord, r *Rival) {
	by := r.By
	if by == "" {
		by = "rival"
	}
	switch r.Change {
	case RivalTouches:
		s.publishAs(d, by, SetField(fmt.Sprintf(`{"by":%q,"after":%d}`, by, d.Version), "rivalNote")(d.Text))
	case RivalSetsTimes:
		s.publishAs(d, by, SetRotationTime(r.Time, r.Processes...)(d.Text))
	case RivalDropsTimes:
		s.publishAs(d, by, DropRotationTimes(r.Processes...)(d.Text))
	case RivalRestores:
		if d.previous != nil {
			s.publishAs(d, by, d.previous)
		}
	case RivalRepublishes:
		s.publishAs(d, by, d.Text)
	case RivalEdits:
		d.edit(SetField(fmt.Sprintf(`"%d"`, s.data.NextID), "rivalNote"))
		s.data.NextID++
	case RivalLocks:
		d.Lock = lockSetting{System: by, Policies: []string{lockPolicy}, Status: 403}
	}
}

// edit changes the text without a publication. What it does to the times, the
// agents take for what has always been so.
func (d *deploymentRecord) edit(change func(text []byte) []byte) {
	d.setText(change(slices.Clone(d.Text)))
	known := maps.Clone(d.Goal.Times)
	for name, was := range d.Goal.Times {
		if d.times[name] == was {
			continue
		}
		known[name] = d.times[name]
		if m, there := d.find(name); there {
			m.Handled = d.times[name]
		}
	}
	d.Goal.Times = known
}
