package main

import (
	"fmt"
	"slices"
	"strings"

	"keyturn/workflows"
)

// hasEvidence reports whether a KMIP server was asked about any of the targets.
func hasEvidence(targets []targetRecord) bool {
	return slices.ContainsFunc(targets, func(t targetRecord) bool { return t.kmip != nil })
}

// hasEvidence reports whether a KMIP server was asked about any of the keys.
func (v *keyView) hasEvidence() bool {
	return slices.ContainsFunc(v.Keys, func(r workflows.KeyRecord) bool { return r.KMIP != nil })
}

// evidenceText is what a KMIP server says about a key, for people; empty = it was
// not asked.
func evidenceText(e *workflows.KeyEvidence) string {
	switch {
	case e == nil:
		return ""
	case e.State != "":
		return string(e.Outcome) + ", " + e.State
	default:
		return string(e.Outcome)
	}
}

// datedEvidenceText also says when the key was made.
func datedEvidenceText(e *workflows.KeyEvidence) string {
	text := evidenceText(e)
	if e != nil && e.InitialDate != nil {
		text += ", made " + timeText(e.InitialDate)
	}
	return text
}

// evidenceValues are the values of the columns kmipOutcome, kmipState,
// kmipInitialDate and kmipAskedAt.
func evidenceValues(e *workflows.KeyEvidence) []string {
	if e == nil {
		return make([]string, 4)
	}
	return []string{string(e.Outcome), e.State, timeText(e.InitialDate), timeText(&e.AskedAt)}
}

// evidenceCounts counts what a KMIP server says about the new keys; empty = it was
// not asked about any.
func evidenceCounts(targets []targetRecord) string {
	counts := map[workflows.EvidenceOutcome]int{}
	asked := 0
	for _, t := range targets {
		if t.kmip != nil {
			counts[t.kmip.Outcome]++
			asked++
		}
	}
	if asked == 0 {
		return ""
	}
	var parts []string
	for _, outcome := range []workflows.EvidenceOutcome{workflows.EvidenceWitnessed, workflows.EvidenceAbsent, workflows.EvidenceForbidden, workflows.EvidenceUnreachable} {
		if counts[outcome] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[outcome], outcome))
		}
	}
	return strings.Join(parts, ", ") + " of " + pluralize(asked, "new key")
}
