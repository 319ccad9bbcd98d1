package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"keyturn/workflows"
)

// clusterRecords are those of a cluster's rotation.
type clusterRecords struct{ workflows.Progress }

func clusterStatusOf(progress workflows.Progress) *rotationStatus {
	return &rotationStatus{records: &clusterRecords{progress}}
}

func (c *clusterRecords) value() any  { return &c.Progress }
func (c *clusterRecords) result() any { return c.RotateClusterResult }

func (c *clusterRecords) common() commonRecords {
	r := &c.RotateClusterResult
	return commonRecords{&c.Phase, &c.WaitingFor, &c.Counts, r.Connection, r.Outcome, r.StartedAt, r.FinishedAt, r.Change, r.Approval, r.Actions, r.ActionsNotListed}
}

func (c *clusterRecords) targets() []targetRecord {
	targets := make([]targetRecord, len(c.Targets))
	for i, r := range c.Targets {
		targets[i] = targetRecord{
			id: r.ClusterID, name: r.Name, otherNames: []string{r.ClusterID}, role: r.Role, status: r.Status,
			isDone: r.Status == workflows.StatusVerified || r.Status == workflows.StatusSkipped || r.Status == workflows.StatusPlanned, doneAt: r.VerifiedAt,
			previousKey: r.PreviousKeyUUID, newKey: r.NewKeyUUID, rotatedAt: r.RotatedAt, verifiedAt: r.VerifiedAt,
			carriedOver: r.CarriedOver, ambiguous: r.Ambiguous, failure: r.Error, firstFailure: r.FirstError, kmip: r.KMIP, remark: r.Remark(),
			clusterID: r.ClusterID, replacedOutside: r.ReplacedOutside, attempts: r.Attempts,
		}
	}
	return targets
}

func (c *clusterRecords) name() string  { return cmp.Or(c.ClusterName, c.ClusterID) }
func (c *clusterRecords) title() string { return "Key rotation of " + c.name() }

func (c *clusterRecords) workflowID() string {
	return workflows.RotateClusterID(c.Connection, c.ProjectID, c.ClusterID)
}

func (c *clusterRecords) foreign() string {
	if c.ClusterID == "" {
		return "it has no clusterId"
	}
	return ""
}

func (c *clusterRecords) continueIn(input *rotationInput) string {
	completed := workflows.RecordsToContinue(c.Targets)
	input.cluster.Completed = completed
	verified := 0
	for _, record := range completed {
		if record.Status == workflows.StatusVerified {
			verified++
		}
	}
	text := fmt.Sprintf("%d of %d targets are verified and not rotated again if they still have that key", verified, len(c.Targets))
	if uncertain := len(completed) - verified; uncertain > 0 {
		text += fmt.Sprintf("; %s may have been rotated without having been verified: keyturn finds out by reading", pluralize(uncertain, "target"))
	}
	return text
}

func (c *clusterRecords) subject() []fact {
	return []fact{
		{"Cluster", strings.TrimSpace(c.ClusterName + " (" + c.ClusterID + ")")},
		{"Project", c.ProjectID},
	}
}

func (c *clusterRecords) proof() string   { return "" }
func (c *clusterRecords) warning() string { return "" }

var (
	targetField    = newTextField("Target", func(t targetRecord) string { return t.name })
	clusterIDField = newIDField("Cluster ID", func(t targetRecord) string { return t.clusterID })
	attemptsField  = field{title: "Attempts", isNumber: true, line: func(t targetRecord) htmlLine { return htmlLine{Text: strconv.Itoa(t.attempts)} }}
)

func (c *clusterRecords) columns() []column {
	return []column{{targetField, clusterIDField}, {statusField, roleField}, {previousKeyField, newKeyField}, {rotatedField, verifiedField}, {attemptsField}}
}

func (c *clusterRecords) planColumns() []column {
	return []column{{targetField}, {roleField}, {clusterIDField}, {statusField}, {currentKeyField}}
}

func (c *clusterRecords) notes() []htmlNote {
	return []htmlNote{
		noteKeys,
		{"verified", "Ops Manager shows another key than before the rotation."},
		{"Attempts", "Attempts of the step that sends the PUT, which is applied once at most."},
	}
}

func (c *clusterRecords) remarks() remarkSection { return remarkSection{} }

func (c *clusterRecords) runColumns() []csvRunColumn {
	return append([]csvRunColumn{{"connection", c.Connection}, {"projectId", c.ProjectID}, {"rotatedClusterId", c.ClusterID}, {"cluster", c.ClusterName}},
		c.common().commonRunColumns()...)
}

func (c *clusterRecords) targetColumns() []csvColumn {
	columns := []csvColumn{
		{"target", func(t targetRecord) string { return t.name }},
		{"clusterId", func(t targetRecord) string { return t.clusterID }},
		{"role", func(t targetRecord) string { return string(t.role) }},
		{"status", func(t targetRecord) string { return string(t.status) }},
	}
	columns = append(columns, idColumns...)
	columns = append(columns, csvColumn{"attempts", func(t targetRecord) string { return strconv.Itoa(t.attempts) }})
	columns = append(columns, settledColumns...)
	columns = append(columns, errorColumns...)
	return append(columns, csvColumn{"replacedOutside", func(t targetRecord) string { return t.replacedOutside }})
}
