package simulator

import (
	"net/http"
	"time"
)

// heldKey is a master key that a component has or had.
type heldKey struct {
	UUID string `json:"uuid"`
	// ShownAt is when a GET begins to show it; zero means from the beginning.
	ShownAt time.Time `json:"shownAt,omitzero"`
}

// current is the place in Keys of the applied key, or -1.
func (r *clusterRecord) current() int {
	return len(r.Keys) - 1
}

// shown is the place in Keys of the key that a GET shows, or -1.
func (r *clusterRecord) shown() int {
	now := time.Now()
	for i := r.current(); i > 0; i-- {
		if !r.Keys[i].ShownAt.After(now) {
			return i
		}
	}
	return min(r.current(), 0)
}

func (r *clusterRecord) keyAt(place int) string {
	if place < 0 {
		return ""
	}
	return r.Keys[place].UUID
}

// Key is the key that an entity really has, even if a GET doesn't show it yet;
// empty for none. It panics if there is no such entity.
func (s *Simulator) Key(clusterID string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	record := s.mustCluster(clusterID)
	return record.keyAt(record.current())
}

// ShownKey is the key that a GET shows at this moment; empty for none. It
// panics if there is no such entity.
func (s *Simulator) ShownKey(clusterID string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	record := s.mustCluster(clusterID)
	return record.keyAt(record.shown())
}

// SetKey gives an entity another key, shown at once, and not in the
// ledger, as someone else's change would. An empty one leaves the entity
// without a key: a GET then has no encryptionKeyUUID. It panics if there is no
// such entity.
func (s *Simulator) SetKey(clusterID, uuid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	record := s.mustCluster(clusterID)
	if uuid == "" {
		record.Keys, record.read = nil, -1
	} else {
		record.Keys = append(record.Keys, heldKey{UUID: uuid})
	}
	s.mustSave()
}

// keyedCluster reads the path's cluster, which must be one that has a key of
// its own; the parent of a sharded cluster is not.
func (s *Simulator) keyedCluster(c *call) (*clusterRecord, *answer) {
	record, refused := s.backedUpCluster(c)
	if refused != nil {
		return nil, refused
	}
	if record.IsParent() {
		return nil, noBackupConfig(c)
	}
	return record, nil
}

func (s *Simulator) getKey(c *call) answer {
	record, refused := s.keyedCluster(c)
	if refused != nil {
		return *refused
	}
	place := record.shown()
	if c.staleRead && place > 0 {
		place--
	}
	record.read = max(record.read, place)
	body := map[string]any{"clusterId": record.ID, "groupId": record.ProjectID}
	addIfSet(body, "encryptionKeyUUID", record.keyAt(place))
	return object(http.StatusOK, body)
}

// wasReadAsNewest reports whether a GET has shown the key that is shown now and
// there is a previous key: only then can a replica lag behind.
func (r *clusterRecord) wasReadAsNewest() bool {
	place := r.shown()
	return place > 0 && r.read >= place
}

// beginPut checks a PUT and applies it now, later or not at all, as the fault
// says. The answer that it is refused with is nil if it isn't.
func (s *Simulator) beginPut(c *call, f Fault) (refused *answer) {
	switch {
	case c.isPublication():
		return s.beginPublication(c, f)
	case !c.isRotation():
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	record, refused := s.keyedCluster(c)
	s.noteParent(c)
	if refused != nil {
		return refused
	}
	if c.key.ReadOnly {
		return unauthorized("USER_UNAUTHORIZED", "Current user is not authorized to perform this action.")
	}
	switch f.Apply {
	case ApplyLate:
		s.rotateLater(c, f)
	case ApplyNo:
	default:
		return s.rotate(c.entry, record, f.ShowAfter)
	}
	return nil
}

// noteParent marks a PUT on a sharded cluster as a whole in the ledger.
func (s *Simulator) noteParent(c *call) {
	if record := s.data.cluster(c.route.clusterID); record != nil {
		c.entry.OnParent = record.IsParent()
	}
}

// rotate gives a component its next key. A rotation that can't be kept in the
// state file isn't applied.
func (s *Simulator) rotate(asked *Request, record *clusterRecord, showAfter time.Duration) *answer {
	if len(record.Keys) == 0 && record.Config.encryptionIsOff() {
		return nil
	}
	if showAfter == 0 {
		showAfter = s.options.ShowAfter
	}
	made, err := s.options.NewKey()
	if err != nil {
		return unexpectedError()
	}
	now := time.Now()
	keys, rotations := record.Keys, s.data.Rotations
	next := heldKey{UUID: made, ShownAt: now.Add(showAfter)}
	s.data.Rotations = append(rotations, Rotation{
		AppliedAt: now, ProjectID: record.ProjectID, ClusterID: record.ID, Request: asked.Seq,
		PreviousKey: record.keyAt(record.current()), NewKey: next.UUID,
	})
	record.Keys = append(keys, next)
	if err := s.save(); err != nil {
		record.Keys, s.data.Rotations = keys, rotations
		return unexpectedError()
	}
	asked.Applied = true
	s.announce()
	return nil
}

// rotateLater applies a PUT of a key after a while.
func (s *Simulator) rotateLater(c *call, f Fault) {
	s.applyLater(c, f, func() {
		// The cluster may have been removed meanwhile, or have lost its backup.
		// No caller is left to report an error to: the ledger shows that
		// nothing was applied.
		if record := s.data.cluster(c.route.clusterID); record != nil && record.Config != nil {
			s.rotate(c.entry, record, f.ShowAfter)
		}
	})
}

// applyLater calls apply after a while, under the lock, whether or not the caller
// is still there; that of a gated PUT, after ClearFaults. Close gives it up.
func (s *Simulator) applyLater(c *call, f Fault, apply func()) {
	if !s.late.enter() {
		return
	}
	go func() {
		defer s.late.leave()
		if f.Gated {
			select {
			case <-s.life.Done():
				return
			case <-c.cleared:
			}
		}
		timer := time.NewTimer(f.ApplyAfter)
		defer timer.Stop()
		select {
		case <-s.life.Done():
			return
		case <-timer.C:
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		apply()
	}()
}

func unexpectedError() *answer {
	return apiError(http.StatusInternalServerError, "UNEXPECTED_ERROR", "Unexpected error.")
}
