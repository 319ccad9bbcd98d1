package simulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
)

const (
	controlPath  = "/simulator/"
	maxFaultBody = 1 << 20
)

// Summary is what GET /simulator/ledger answers.
type Summary struct {
	Targets []TargetSummary `json:"targets"`
	// Requests counts all requests; of those that the ledger keeps, Authenticated
	// counts the ones with right credentials, Challenges the 401 answers that
	// were a challenge, PutsOnParents the PUTs that named a sharded cluster as a
	// whole.
	Requests      int `json:"requests"`
	Authenticated int `json:"authenticated"`
	Challenges    int `json:"challenges"`
	PutsOnParents int `json:"putsOnParents"`
	MaxInFlight   int `json:"maxInFlight"`
	// RotationsApplied counts those of all targets, also of removed ones.
	RotationsApplied int `json:"rotationsApplied"`
	// Deployments are in the order of their projects' ids.
	Deployments []DeploymentSummary `json:"deployments,omitempty"`
}

// DeploymentSummary is the deployment of one project.
type DeploymentSummary struct {
	ProjectID string `json:"projectId"`
	// Version is that of the configuration, Puts the PUTs of one, whether or not they
	// were applied, and PutsApplied those that were.
	Version     int64 `json:"version"`
	GoalVersion int64 `json:"goalVersion"`
	Puts        int   `json:"puts"`
	PutsApplied int   `json:"putsApplied"`
	// Violations say what no rotation may do: see Ledger.Violations.
	Violations []string         `json:"violations"`
	Processes  []ProcessSummary `json:"processes"`
}

// ProcessSummary is one process of a deployment.
type ProcessSummary struct {
	Name       string `json:"name"`
	Host       string `json:"host"`
	ReplicaSet string `json:"replicaSet,omitempty"`
	ClusterID  string `json:"clusterId"`
	// Time is the one in the configuration as JSON, and Key the key in use.
	Time      string           `json:"time,omitempty"`
	Key       string           `json:"key,omitempty"`
	Rotations []MemberRotation `json:"rotations"`
}

// TargetSummary is one component that has a key of its own.
type TargetSummary struct {
	ID          string `json:"id"`
	ProjectID   string `json:"projectId"`
	ClusterName string `json:"clusterName"`
	Name        string `json:"name"`
	// Role is shard, configServer, replicaSet, or empty for another type.
	Role     string `json:"role"`
	TypeName string `json:"typeName"`
	// Key is the applied key, ShownKey the one that a GET shows.
	Key      string `json:"key"`
	ShownKey string `json:"shownKey"`
	// Rotations are the PUTs that were applied.
	Rotations []Rotation `json:"rotations"`
}

// Summary sums the ledger up per target, in the order of adding.
func (s *Simulator) Summary() Summary {
	ledger, targets, deployments, arrived := s.copyTargets()
	return Summary{
		Targets: targets, Deployments: deployments,
		Requests: arrived, Authenticated: ledger.Count("", ""), Challenges: ledger.Challenges(),
		PutsOnParents: len(ledger.PutsOnParents()), MaxInFlight: ledger.MaxInFlight(),
		RotationsApplied: len(ledger.Rotations),
	}
}

// copyTargets holds the lock for no longer than the copying takes.
func (s *Simulator) copyTargets() (ledger Ledger, targets []TargetSummary, deployments []DeploymentSummary, arrived int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	projects := slices.Sorted(maps.Keys(s.data.Deployments))
	for _, project := range projects {
		s.advance(project)
	}
	ledger, targets = s.copyLedger(), []TargetSummary{}
	applied := map[string][]Rotation{}
	for _, r := range ledger.Rotations {
		applied[r.ClusterID] = append(applied[r.ClusterID], r)
	}
	for _, record := range s.data.Clusters {
		if !record.IsParent() && !record.Automated {
			targets = append(targets, summarize(record, applied[record.ID]))
		}
	}
	for _, project := range projects {
		deployments = append(deployments, s.data.Deployments[project].summary(ledger))
	}
	return ledger, targets, deployments, s.arrived
}

func (d *deploymentRecord) summary(l Ledger) DeploymentSummary {
	project := d.Options.ProjectID
	summary := DeploymentSummary{
		ProjectID: project, Version: d.Version, GoalVersion: d.Goal.Version, Violations: append([]string{}, l.Violations(project)...),
	}
	for _, put := range l.Puts(project) {
		summary.Puts++
		if put.Applied {
			summary.PutsApplied++
		}
	}
	for _, m := range d.Members {
		summary.Processes = append(summary.Processes, ProcessSummary{
			Name: m.Name, Host: m.host(), ReplicaSet: m.ReplicaSet, ClusterID: m.ClusterID, Time: d.times[m.Name], Key: m.key(),
			Rotations: append([]MemberRotation{}, l.MemberRotationsOf(project, m.Name)...),
		})
	}
	return summary
}

func summarize(record *clusterRecord, applied []Rotation) TargetSummary {
	name, role := nameAndRole(record)
	return TargetSummary{
		ID: record.ID, ProjectID: record.ProjectID, ClusterName: record.ClusterName,
		Name: name, Role: role, TypeName: record.TypeName,
		Key: record.keyAt(record.current()), ShownKey: record.keyAt(record.shown()),
		Rotations: append([]Rotation{}, applied...),
	}
}

func nameAndRole(record *clusterRecord) (name, role string) {
	switch {
	case record.isShard():
		return record.ShardName, "shard"
	case record.TypeName == TypeConfigServerReplicaSet:
		return record.ReplicaSetName, "configServer"
	case record.TypeName == TypeReplicaSet:
		return record.ClusterName, "replicaSet"
	}
	return record.ClusterName, ""
}

// serveControl answers what is for the outside of a simulator's process. It is
// neither authenticated nor part of the ledger.
func (s *Simulator) serveControl(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "GET /simulator/ledger":
		writeControl(w, http.StatusOK, s.Summary())
	case "GET /simulator/requests":
		writeControl(w, http.StatusOK, s.Ledger())
	case "GET /simulator/faults":
		writeControl(w, http.StatusOK, s.faultList())
	case "POST /simulator/faults":
		s.postFaults(w, r)
	case "DELETE /simulator/faults":
		s.ClearFaults()
		w.WriteHeader(http.StatusNoContent)
	case "POST /simulator/deployments":
		s.postDeployments(w, r)
	default:
		writeControl(w, http.StatusNotFound, controlError{
			"GET /simulator/ledger, GET /simulator/requests, GET, POST or DELETE /simulator/faults, POST /simulator/deployments",
		})
	}
}

type controlError struct {
	Error string `json:"error"`
}

// faultStatus is a fault and how far it has come.
type faultStatus struct {
	Fault Fault `json:"fault"`
	Met   int   `json:"met"`
	Spent bool  `json:"spent"`
}

func (s *Simulator) faultList() []faultStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []faultStatus{}
	for _, f := range s.faults {
		list = append(list, faultStatus{Fault: f.Fault, Met: f.met, Spent: f.spent()})
	}
	return list
}

// postFaults injects one fault, or all of a list or none.
func (s *Simulator) postFaults(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFaultBody))
	if err != nil {
		writeControl(w, http.StatusBadRequest, controlError{err.Error()})
		return
	}
	faults, err := parseFaults(body)
	if err != nil {
		writeControl(w, http.StatusBadRequest, controlError{err.Error()})
		return
	}
	for _, f := range faults {
		s.Inject(f)
	}
	writeControl(w, http.StatusCreated, s.faultList())
}

func parseFaults(body []byte) ([]Fault, error) {
	faults := make([]Fault, 1)
	var into any = &faults[0]
	if bytes.HasPrefix(bytes.TrimSpace(body), []byte("[")) {
		into = &faults
	}
	if err := json.Unmarshal(body, into); err != nil {
		return nil, err
	}
	var invalid []error
	for _, f := range faults {
		invalid = append(invalid, f.Validate())
	}
	return faults, errors.Join(invalid...)
}

func writeControl(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", contentTypeJSON)
	w.WriteHeader(status)
	_, _ = w.Write(append(marshal(body, true), '\n'))
}
