package opsmanager

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// AutomationStatus is how far the agents of a project are.
type AutomationStatus struct {
	// GoalVersion is the version of the automation configuration that the agents
	// are to reach.
	GoalVersion int64
	// Processes has one entry for each process of the configuration.
	Processes []ProcessStatus
}

// ProcessStatus is how far the agent of one process is.
type ProcessStatus struct {
	// Name is that of the process in the automation configuration.
	Name string
	// Hostname is that of the process's machine.
	Hostname string
	// AchievedVersion is lastGoalVersionAchieved; -1 = not said.
	AchievedVersion int64
	// Plan has the moves that the agent has left; do not match them by name.
	Plan []string
	// ErrorCode is 0 without an error, and -1 where it is no number.
	ErrorCode int64
	// ErrorText is the agent's own text, of at most 256 characters.
	ErrorText string
}

// IsAtGoal reports whether the agent says that the process has reached a version,
// without an error. Before Ops Manager 8.0.2 agents could say so wrongly.
func (p ProcessStatus) IsAtGoal(version int64) bool {
	return p.AchievedVersion >= version && p.ErrorCode == 0
}

const automationStatusPath = "/groups/%s/automationStatus"

// AutomationStatusPath returns the path of the status of a project's agents below the
// base URL, for messages.
func AutomationStatusPath(projectID string) string {
	return fmt.Sprintf(apiPath+automationStatusPath, projectID)
}

// AutomationStatus reads how far the agents of a project are. A response without a
// goal version, or with a process without a name of its own, is an error of kind
// [UnexpectedResponse].
func (c *Client) AutomationStatus(ctx context.Context, projectID string) (AutomationStatus, error) {
	r, err := c.request(http.MethodGet, automationStatusPath, projectID)
	if err != nil {
		return AutomationStatus{}, err
	}
	var body object
	a, err := c.read(ctx, r, &body)
	if err != nil {
		return AutomationStatus{}, err
	}
	status, problem := decodeAutomationStatus(body)
	if problem != "" {
		return AutomationStatus{}, c.unexpected(r, a, problem)
	}
	return status, nil
}

func decodeAutomationStatus(body object) (status AutomationStatus, problem string) {
	goal, ok := body.integer("goalVersion")
	if !ok {
		return status, "the response has no goalVersion that is a whole number"
	}
	processes, ok := body.list("processes")
	if !ok || !body.has("processes") {
		return status, "the response has no list of processes"
	}
	status.GoalVersion = goal
	names := map[string]bool{}
	for i, raw := range processes {
		o, _ := objectOf(raw)
		process := decodeProcessStatus(o)
		if process.Name == "" || names[process.Name] {
			return status, fmt.Sprintf("process %d of the response has no unique name", i)
		}
		names[process.Name] = true
		status.Processes = append(status.Processes, process)
	}
	return status, ""
}

func decodeProcessStatus(o object) ProcessStatus {
	process := ProcessStatus{Hostname: o.text("hostname"), AchievedVersion: -1, ErrorText: o.text("errorString")}
	// Compared with the automation configuration's, which is not cut.
	_ = json.Unmarshal(o["name"], &process.Name)
	if achieved, ok := o.integer("lastGoalVersionAchieved"); ok {
		process.AchievedVersion = achieved
	}
	if o.has("errorCode") {
		code, ok := o.integer("errorCode")
		if !ok {
			code = -1
		}
		process.ErrorCode = code
	}
	moves, _ := o.list("plan")
	for _, raw := range moves {
		var move string
		if json.Unmarshal(raw, &move) == nil {
			process.Plan = append(process.Plan, printable(move))
		} else {
			process.Plan = append(process.Plan, "?")
		}
	}
	return process
}
