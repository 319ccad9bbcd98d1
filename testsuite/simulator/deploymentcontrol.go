package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"
)

// deploymentOrder is the body of POST /simulator/deployments: what is to be
// otherwise in a deployment from now on, and what is to be done to it. Durations
// are strings.
type deploymentOrder struct {
	// ProjectID is DefaultProjectID if it is empty.
	ProjectID string `json:"projectId"`
	// Agents are by their processes' names.
	Agents  map[string]Agent `json:"agents"`
	Conduct *Conduct         `json:"conduct"`
	// Rival acts at once: it has no when.
	Rival *Rival `json:"rival"`
	// Snapshots to take, by their clusters' ids.
	Snapshots map[string]MemberSnapshot `json:"snapshots"`
}

// postDeployments answers with the summary of the deployment.
func (s *Simulator) postDeployments(w http.ResponseWriter, r *http.Request) {
	order, err := readOrder(http.MaxBytesReader(w, r.Body, maxFaultBody))
	if err == nil {
		err = s.checkOrder(order)
	}
	if err != nil {
		writeControl(w, http.StatusBadRequest, controlError{err.Error()})
		return
	}
	d := s.Deployment(order.ProjectID)
	for _, name := range slices.Sorted(maps.Keys(order.Agents)) {
		d.SetAgent(name, order.Agents[name])
	}
	if order.Conduct != nil {
		d.SetConduct(*order.Conduct)
	}
	if order.Rival != nil {
		d.Act(*order.Rival)
	}
	for _, id := range slices.Sorted(maps.Keys(order.Snapshots)) {
		d.TakeMemberSnapshot(id, order.Snapshots[id])
	}
	for _, summary := range s.Summary().Deployments {
		if summary.ProjectID == order.ProjectID {
			writeControl(w, http.StatusOK, summary)
		}
	}
}

func readOrder(from io.Reader) (order deploymentOrder, err error) {
	decoder := json.NewDecoder(from)
	decoder.DisallowUnknownFields()
	err = decoder.Decode(&order)
	if order.ProjectID == "" {
		order.ProjectID = DefaultProjectID
	}
	return order, err
}

// checkOrder returns what would make the methods of Deployment panic.
func (s *Simulator) checkOrder(o deploymentOrder) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.data.Deployments[o.ProjectID]
	if d == nil {
		return fmt.Errorf("projectId: project %s has no deployment", o.ProjectID)
	}
	var faults []error
	for name := range o.Agents {
		if _, there := d.find(name); !there {
			faults = append(faults, fmt.Errorf("agents: the deployment has no process %s", name))
		}
	}
	for id, snapshot := range o.Snapshots {
		cluster := s.data.cluster(id)
		if cluster == nil || !cluster.Automated || cluster.ProjectID != o.ProjectID {
			faults = append(faults, fmt.Errorf("snapshots: the deployment has no cluster %s", id))
		}
		for _, name := range snapshot.From {
			if _, there := d.find(name); !there {
				faults = append(faults, fmt.Errorf("snapshots: the deployment has no process %s", name))
			}
		}
	}
	if o.Rival != nil {
		rival := *o.Rival
		rival.When = RivalBefore
		faults = append(faults, rival.validate())
	}
	return errors.Join(faults...)
}

// agentJSON and conductJSON have the durations as strings, as faultJSON.
type (
	plainAgent   Agent
	plainConduct Conduct

	agentJSON struct {
		plainAgent
		Takes jsonDuration `json:"takes,omitzero"`
		Waits jsonDuration `json:"waits,omitzero"`
	}
	conductJSON struct {
		plainConduct
		GoalAfter jsonDuration `json:"goalAfter,omitzero"`
	}
)

// MarshalJSON implements json.Marshaler.
func (a Agent) MarshalJSON() ([]byte, error) {
	return json.Marshal(agentJSON{plainAgent(a), jsonDuration(a.Takes), jsonDuration(a.Waits)})
}

// UnmarshalJSON implements json.Unmarshaler. It refuses unknown fields.
func (a *Agent) UnmarshalJSON(text []byte) error {
	var read agentJSON
	if err := decodeStrictly(text, &read); err != nil {
		return err
	}
	*a = Agent(read.plainAgent)
	a.Takes, a.Waits = time.Duration(read.Takes), time.Duration(read.Waits)
	return nil
}

// MarshalJSON implements json.Marshaler.
func (c Conduct) MarshalJSON() ([]byte, error) {
	return json.Marshal(conductJSON{plainConduct(c), jsonDuration(c.GoalAfter)})
}

// UnmarshalJSON implements json.Unmarshaler. It refuses unknown fields.
func (c *Conduct) UnmarshalJSON(text []byte) error {
	var read conductJSON
	if err := decodeStrictly(text, &read); err != nil {
		return err
	}
	*c = Conduct(read.plainConduct)
	c.GoalAfter = time.Duration(read.GoalAfter)
	return nil
}
