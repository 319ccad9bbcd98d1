package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"keyturn/workflows"
)

// maxCellText is how many characters a spreadsheet takes in one cell.
const maxCellText = 32_000

// actionText is an action in one line.
func actionText(action workflows.Action) string {
	line := timeText(&action.At) + " " + action.Action + " by " + action.By
	if targets := actionTargets(action); targets != "" {
		line += ": " + targets
	}
	if action.Reason != "" {
		line += ": " + action.Reason
	}
	return clean(line)
}

// actionTargets names the targets of a retry or a skip.
func actionTargets(action workflows.Action) string {
	targets := strings.Join(action.Targets, ", ")
	if action.TargetsNotListed > 0 {
		targets += fmt.Sprintf(" and %d more", action.TargetsNotListed)
	}
	return targets
}

// olderActions mentions the actions that did not fit into the records; empty =
// there are none.
func olderActions(notListed int) string {
	if notListed == 0 {
		return ""
	}
	return pluralize(notListed, "older action") + " not listed"
}

// actionsTable is the part of a terminal's report about what operators did.
func actionsTable(l layout, actions []workflows.Action, notListed int) string {
	if len(actions) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\nActions\n")
	if older := olderActions(notListed); older != "" {
		b.WriteString(l.line("  "+older) + "\n")
	}
	for _, action := range actions {
		b.WriteString(l.line("  "+actionText(action)) + "\n")
	}
	return b.String()
}

// actionsMarkdown is the same for a ticket.
func actionsMarkdown(actions []workflows.Action, notListed int) string {
	if len(actions) == 0 {
		return ""
	}
	var rows []table.Row
	for _, action := range actions {
		rows = append(rows, table.Row{timeText(&action.At), action.By, action.Action, actionTargets(action), action.Reason})
	}
	section := "\n## Actions\n\n" + markdownTable(table.Row{"At", "By", "Action", "Targets", "Reason"}, rows) + "\n"
	if older := olderActions(notListed); older != "" {
		section += "\n" + older + "\n"
	}
	return section
}

// actionsCell has the actions in one cell of a spreadsheet.
func actionsCell(actions []workflows.Action, notListed int) string {
	var parts []string
	if older := olderActions(notListed); older != "" {
		parts = append(parts, older)
	}
	for _, action := range actions {
		parts = append(parts, actionText(action))
	}
	return text.Snip(strings.Join(parts, "; "), maxCellText, "…")
}

// actionsOn are the actions on the whole rotation, and those on this target.
func actionsOn(t targetRecord, actions []workflows.Action) (selected []workflows.Action) {
	for _, action := range actions {
		isWhole := len(action.Targets) == 0 || action.TargetsNotListed > 0
		isNamed := func(name string) bool { return slices.Contains(action.Targets, name) }
		if isWhole || isNamed(t.name) || slices.ContainsFunc(t.otherNames, isNamed) {
			selected = append(selected, action)
		}
	}
	return selected
}
