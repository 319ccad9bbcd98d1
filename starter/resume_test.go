package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"keyturn/workflows"
)

func saved(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestResumeFromAFileTakesTheVerifiedTargets(t *testing.T) {
	so := progressOf(workflows.PhaseHeld)
	so.RotateClusterResult = partialResult()
	for name, value := range map[string]any{"a result": partialResult(), "a progress": so} {
		a, _, stderr := newTestApp()
		completed, err := a.completedInFile(resumeFlags{file: writeFile(t, "report.json", saved(t, value))})
		if err != nil || len(completed) != 3 || completed[0].NewKeyUUID != "new-00" || completed[2].Name != "orders-2" {
			t.Errorf("%s: got %+v, %v", name, completed, err)
		}
		if !strings.Contains(stderr.String(), "3 of 5 targets are verified") {
			t.Errorf("%s: said %q", name, stderr)
		}
	}
}

func TestResumeFromStandardInput(t *testing.T) {
	a, _, _ := newTestApp()
	a.stdin = strings.NewReader(saved(t, partialResult()))
	if completed, err := a.completedInFile(resumeFlags{file: "-"}); err != nil || len(completed) != 3 {
		t.Errorf("got %+v, %v", completed, err)
	}
}

func TestResumeFromAnUnfitFileIsWrongUse(t *testing.T) {
	other, whole := partialResult(), partialResult()
	other.Connection = "berlin"
	whole.Outcome = workflows.OutcomeRotated
	for want, text := range map[string]string{
		"is about another cluster: rotate-cluster:berlin:": saved(t, other),
		"there is nothing to go on with":                   saved(t, whole),
		"it has no clusterId":                              `{}`,
		"is no JSON report":                                `target,clusterId`,
	} {
		a, _, _ := newTestApp()
		_, err := a.completedInFile(resumeFlags{file: writeFile(t, "report.json", text)})
		var usage *usageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want wrong use with %q", err, want)
		}
	}
}
