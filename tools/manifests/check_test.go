package main

import (
	"os"
	"strings"
	"testing"
)

const manifest = "../../deploy/kubernetes.yml"

func TestManifestIsValid(t *testing.T) {
	kinds, err := checkFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	want := "ServiceAccount ConfigMap Deployment PodDisruptionBudget NetworkPolicy"
	if got := strings.Join(kinds, " "); got != want {
		t.Errorf("kinds %s, want %s", got, want)
	}
}

// Every check can fail.
func TestProblemsAreFound(t *testing.T) {
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct{ old, broken, want string }{
		"misspelt field":           {"terminationGracePeriodSeconds:", "terminationGracePeriodSecond:", `unknown field "spec.template.spec.terminationGracePeriodSecond"`},
		"field in the wrong place": {"      serviceAccountName:", "      replicas: 2\n      serviceAccountName:", `unknown field "spec.template.spec.replicas"`},
		"field twice":              {"  replicas: 2", "  replicas: 2\n  replicas: 3", `"replicas" already set`},
		"wrong type":               {"replicas: 2", `replicas: "2"`, "cannot unmarshal"},
		"number as a setting":      {`"10"`, "10", "cannot unmarshal"},
		"unknown kind":             {"kind: PodDisruptionBudget", "kind: PodDisruptionBudge", "no kind"},
		"old version":              {"policy/v1", "policy/v1beta2", "no kind"},
		"kind without a check":     {"automountServiceAccountToken: false # the worker does not call the Kubernetes API\n---", "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: keyturn}\n---", "no check for kind"},
		"namespace":                {"  name: keyturn-worker", "  namespace: prod\n  name: keyturn-worker", "metadata.namespace must be unset"},
		"wrong name":               {"  name: keyturn-worker", "  name: keyturn_worker", "metadata.name"},
		"selector of other pods":   {"    matchLabels: {app.kubernetes.io/name: keyturn,", "    matchLabels: {app.kubernetes.io/name: other,", "selector"},
		"unknown volume":           {"- {name: secrets, mountPath", "- {name: secret, mountPath", "volumeMounts[0].name: Not found"},
		"impossible request":       {"memory: 64Mi", "memory: 64MM", "unable to parse quantity's suffix"},
		"request above the limit":  {"memory: 64Mi", "memory: 640Mi", "must be less than or equal to memory limit"},
		"wrong protocol":           {"protocol: UDP", "protocol: UPD", "protocol"},
		"runs as root":             {"runAsNonRoot: true", "runAsNonRoot: false", "restricted"},
		"capabilities":             {"capabilities: {drop: [ALL]}", "capabilities: {drop: [KILL]}", "unrestricted capabilities"},
		"no seccomp":               {"        seccompProfile: {type: RuntimeDefault}\n", "", "seccompProfile"},
		"privilege escalation":     {"allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "allowPrivilegeEscalation"},
		"host path":                {"          secret:\n            secretName: keyturn-ops-manager\n            defaultMode: 0440", "          hostPath: {path: /etc}", "restricted volume types"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			broken := strings.Replace(string(text), test.old, test.broken, 1)
			if broken == string(text) {
				t.Fatalf("the manifest does not contain %q", test.old)
			}
			_, err := check(strings.NewReader(broken))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one that contains %q", err, test.want)
			}
		})
	}
	if _, err := check(strings.NewReader("# nothing\n")); err == nil {
		t.Error("a file without an object is accepted")
	}
}
