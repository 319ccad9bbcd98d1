package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

const stateVersion = 1

// dataset is all that a state file keeps.
type dataset struct {
	Version       int              `json:"version"`
	NextID        int              `json:"nextId"`
	Organizations []*Organization  `json:"organizations"`
	Projects      []*Project       `json:"projects"`
	Clusters      []*clusterRecord `json:"clusters"`
	Rotations     []Rotation       `json:"rotations"`
	// Snapshots and RestoreJobs are those that were added, by their cluster's id.
	Snapshots   map[string][]*Snapshot   `json:"snapshots,omitempty"`
	RestoreJobs map[string][]*RestoreJob `json:"restoreJobs,omitempty"`

	// Deployments are by their project's id.
	Deployments     map[string]*deploymentRecord `json:"deployments,omitempty"`
	Publications    []Publication                `json:"publications,omitempty"`
	MemberRotations []MemberRotation             `json:"memberRotations,omitempty"`

	byID map[string]*clusterRecord
}

func newDataset() *dataset {
	return &dataset{Version: stateVersion, byID: map[string]*clusterRecord{}}
}

func (d *dataset) cluster(id string) *clusterRecord {
	return d.byID[id]
}

func (d *dataset) putCluster(record *clusterRecord) {
	d.Clusters = append(d.Clusters, record)
	d.byID[record.ID] = record
}

func (d *dataset) removeCluster(id string) {
	d.Clusters = slices.DeleteFunc(d.Clusters, func(r *clusterRecord) bool { return r.ID == id })
	delete(d.byID, id)
}

// clustersOf gives a project's entities in the order in which they were added.
func (d *dataset) clustersOf(projectID string) []*clusterRecord {
	var of []*clusterRecord
	for _, record := range d.Clusters {
		if record.ProjectID == projectID {
			of = append(of, record)
		}
	}
	return of
}

// listed gives those of a project's entities that a list shows and that fulfil
// a condition.
func (d *dataset) listed(projectID string, fulfils func(*clusterRecord) bool) []*clusterRecord {
	return slices.DeleteFunc(d.clustersOf(projectID), func(r *clusterRecord) bool { return r.Hidden || !fulfils(r) })
}

// UseStateFile keeps the simulator's data in a JSON file: projects, clusters,
// backup configurations, keys, deployments and the rotations and publications of the ledger, but neither API
// keys, faults nor requests. If the file is there, its data replaces all that
// the simulator holds, and restored is true; otherwise it is written. From then
// on it is written at each change, before a PUT is answered, so that a
// simulator that is killed goes on where it was. A PUT whose rotation can't be
// written isn't applied and gets 500; the methods that change data panic.
func (s *Simulator) UseStateFile(path string) (restored bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stored, err := readState(path)
	if err != nil {
		return false, err
	}
	former := s.stateFile
	s.stateFile = path
	if stored != nil {
		s.data = stored
		for project, d := range s.data.Deployments {
			d.index()
			s.wakeLater(project)
		}
		s.announce()
		return true, nil
	}
	if err := s.save(); err != nil {
		s.stateFile = former
		return false, err
	}
	return false, nil
}

// readState is nil, without an error, for a file that isn't there.
func readState(path string) (*dataset, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state file: %w", err)
	}
	stored := newDataset()
	if err := json.Unmarshal(text, stored); err != nil {
		return nil, fmt.Errorf("state file %s: %w", path, err)
	}
	if stored.Version != stateVersion {
		return nil, fmt.Errorf("state file %s: version %d, not %d", path, stored.Version, stateVersion)
	}
	for _, record := range stored.Clusters {
		record.read = -1
		stored.byID[record.ID] = record
	}
	return stored, nil
}

// save writes the state file, if there is one. The lock is held.
func (s *Simulator) save() error {
	if s.stateFile == "" {
		return nil
	}
	if err := writeAtomically(s.stateFile, append(marshal(s.data, false), '\n')); err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	return nil
}

// mustSave ends a change of the data.
func (s *Simulator) mustSave() {
	if err := s.save(); err != nil {
		panic("simulator: " + err.Error())
	}
	s.announce()
}

// writeAtomically leaves either the old file or the whole new one, whenever the
// process is killed.
func writeAtomically(path string, text []byte) error {
	unfinished := path + ".tmp"
	if err := os.WriteFile(unfinished, text, 0o600); err != nil {
		return err
	}
	return os.Rename(unfinished, path)
}
