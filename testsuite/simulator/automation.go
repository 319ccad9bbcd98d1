package simulator

import (
	"net/http"
	"slices"
	"time"
)

// pingEvery is how often a process is heard of.
const pingEvery = 10 * time.Second

// ExternallyManaged says that another system manages the project: controlledFeature
// shows it with the given policies, EXTERNALLY_MANAGED_LOCK if none is given, and a
// PUT of the configuration gets the status, 401 or 403; 0 means that it is not
// refused. An empty system takes the lock away.
func (d *Deployment) ExternallyManaged(system string, status int, policies ...string) {
	if len(policies) == 0 && system != "" {
		policies = []string{lockPolicy}
	}
	if system == "" {
		status = 0
	}
	d.locked(func(record *deploymentRecord) { record.Lock = lockSetting{system, slices.Clone(policies), status} })
}

func (s *Simulator) getAutomationStatus(c *call) answer {
	d, refused := s.automated(c)
	if refused != nil {
		return *refused
	}
	processes := []map[string]any{}
	if d == nil {
		return object(http.StatusOK, map[string]any{"goalVersion": 0, "processes": processes})
	}
	for _, m := range d.Members {
		if _, there := d.times[m.Name]; !there || m.Agent.Unreported {
			continue
		}
		processes = append(processes, map[string]any{
			"hostname": m.Hostname, "name": m.Name, "lastGoalVersionAchieved": m.Achieved, "plan": m.plan(d),
			"errorCode": m.ErrorCode, "errorString": m.ErrorText,
		})
	}
	return object(http.StatusOK, map[string]any{"goalVersion": d.Goal.Version, "processes": processes})
}

func (m *member) plan(d *deploymentRecord) []string {
	switch {
	case m.Agent.WronglyAtGoal && m.Achieved == d.Goal.Version:
	case m.Acting:
		return []string{"Stop", "RotateKmipMasterKey", "Start", "WaitRsInit"}
	case d.wants(m):
		return []string{"WaitDeploymentStable", "Stop", "RotateKmipMasterKey", "Start", "WaitRsInit"}
	}
	return []string{}
}

func (s *Simulator) getHosts(c *call) answer {
	d, refused := s.automated(c)
	if refused != nil {
		return *refused
	}
	wanted := c.r.URL.Query().Get("clusterId")
	var shown []*member
	if d != nil {
		shown = slices.DeleteFunc(slices.Clone(d.Members), func(m *member) bool {
			return m.Agent.Unmonitored || (wanted != "" && wanted != m.ClusterID && wanted != m.ParentID)
		})
	}
	return page(c, shown, func(m *member) map[string]any { return s.hostBody(c, d, m) })
}

func (s *Simulator) hostBody(c *call, d *deploymentRecord, m *member) map[string]any {
	id := hostID(m)
	body := map[string]any{
		"id": id, "groupId": d.Options.ProjectID, "clusterId": m.ClusterID, "hostname": m.Hostname, "port": m.Port,
		"version": "8.0.4", "deactivated": false, "hostEnabled": true, "alertsEnabled": true, "typeName": m.typeName(),
		"lastPing": d.timestamp(m.lastPing(s.now())), "lastRestart": d.timestamp(m.LastRestart),
		"links": []map[string]any{s.link(c, "self", "/groups/"+d.Options.ProjectID+"/hosts/"+id, nil)},
	}
	if d.Conduct.WithoutLastRestart {
		delete(body, "lastRestart")
	}
	if !m.Mongos {
		body["replicaSetName"], body["replicaStateName"] = m.ReplicaSet, m.state()
	}
	return body
}

// hostID is 32 hex digits, as Ops Manager's.
func hostID(m *member) string {
	const hex = "0123456789abcdef"
	id := make([]byte, 32)
	sum := uint64(14695981039346656037)
	for i := range id {
		for _, b := range []byte(m.host()) {
			sum = (sum ^ uint64(b)) * 1099511628211
		}
		id[i] = hex[sum>>60]
	}
	return string(id)
}

func (m *member) lastPing(now time.Time) time.Time {
	if m.Agent.isSilent() {
		return m.Agent.SilentSince
	}
	// Each process has a time of its own, so that a list of several pages seldom
	// stays the same while it is read.
	shift := time.Duration(m.Port) * 7919 * time.Millisecond % pingEvery
	return now.Add(-shift).Truncate(pingEvery).Add(shift)
}

func (m *member) isDown() bool { return m.Acting || m.Agent.Down || !m.TriedAt.IsZero() }

func (m *member) state() string {
	switch {
	case m.isDown():
		return "DOWN"
	case m.Arbiter:
		return "ARBITER"
	case m.Primary:
		return "PRIMARY"
	}
	return "SECONDARY"
}

func (m *member) typeName() string {
	switch {
	case m.Mongos:
		return "SHARD_MONGOS"
	case m.Arbiter:
		return "REPLICA_ARBITER"
	case m.Primary:
		return "REPLICA_PRIMARY"
	}
	return "REPLICA_SECONDARY"
}

// timestamp has milliseconds unless the deployment's times are whole seconds.
func (d *deploymentRecord) timestamp(t time.Time) string {
	if d.Options.WholeSeconds {
		return timestamp(t)
	}
	return t.UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano)
}

// exactTimestamp is that of a project's deployment.
func (s *Simulator) exactTimestamp(projectID string, t time.Time) string {
	if d := s.data.Deployments[projectID]; d != nil {
		return d.timestamp(t)
	}
	return timestamp(t)
}

func (s *Simulator) getEvents(c *call) answer {
	d, refused := s.automated(c)
	if refused != nil {
		return *refused
	}
	query := c.r.URL.Query()
	since := time.Time{}
	if text := query.Get("minDate"); text != "" {
		var err error
		if since, err = time.Parse(time.RFC3339, text); err != nil {
			return *apiError(http.StatusBadRequest, "INVALID_QUERY_PARAMETER", "Invalid query parameter minDate specified.", "minDate")
		}
	}
	var shown []event
	if d != nil {
		for _, e := range slices.Backward(d.Events) { // the newest first
			if wanted := query["eventType"]; !e.Created.Before(since) && (len(wanted) == 0 || slices.Contains(wanted, e.TypeName)) {
				shown = append(shown, e)
			}
		}
	}
	return page(c, shown, func(e event) map[string]any {
		body := map[string]any{
			"id": e.ID, "eventTypeName": e.TypeName, "groupId": c.route.projectID, "created": timestamp(e.Created),
			"isGlobalAdmin": false, "remoteAddress": "192.0.2.7",
			"links": []map[string]any{s.link(c, "self", "/groups/"+c.route.projectID+"/events/"+e.ID, nil)},
		}
		addIfSet(body, "publicKey", e.PublicKey)
		addIfSet(body, "username", e.Username)
		return body
	})
}

func (s *Simulator) getControlledFeature(c *call) answer {
	d, refused := s.automated(c)
	if refused != nil {
		return *refused
	}
	body := map[string]any{"externalManagementSystem": nil, "policies": []any{}}
	if d != nil && d.Lock.System != "" {
		policies := []map[string]any{}
		for _, name := range d.Lock.Policies {
			policies = append(policies, map[string]any{"policy": name, "disabledParams": []string{}})
		}
		body["policies"] = policies
		body["externalManagementSystem"] = map[string]any{"name": d.Lock.System, "systemId": "simulated", "version": "1.27.0"}
	}
	return object(http.StatusOK, body)
}
