package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/invariants"
	"keyturn/workflows"
)

const (
	// auditSet is the plain replica set of the deployment. By its name, it is the
	// first one that is rotated.
	auditSet = "audit"
	// stuckProcess is a member of the second replica set that is rotated.
	stuckProcess = "orders-0-1"
)

// deploymentKind shows RotateDeployment: the keys of the processes of a project, by
// an Ops Manager of today, whose agents restart one member after the other.
type deploymentKind struct {
	settings   settings
	deployment *simulator.Deployment
}

func (k *deploymentKind) serviceVersion() string { return simulator.UnservedServiceVersion }

// populate adds a replica set, and the sharded clusters orders, orders2 and so on.
func (k *deploymentKind) populate(om *simulator.Server) []part {
	clusters := []simulator.DeployedCluster{{Name: auditSet}}
	for i := range k.settings.clusters {
		clusters = append(clusters, simulator.DeployedCluster{Name: numberedName("orders", i), Shards: k.settings.shards, Mongos: 1})
	}
	k.deployment = om.AddDeployment(simulator.DeploymentOptions{
		ProjectID: project, Clusters: clusters, MemberTime: k.settings.memberTime, SnapshotEvery: snapshotEvery,
		// As Ops Manager writes them, unless members restart faster than that.
		WholeSeconds: k.settings.memberTime >= time.Second,
	})
	var parts []part
	members := map[string]int{}
	for _, process := range k.deployment.Processes() {
		members[process.ReplicaSet]++
	}
	for _, cluster := range clusters {
		sets := []string{cluster.Name}
		if cluster.Shards > 0 {
			sets = slices.DeleteFunc(slices.Sorted(maps.Keys(members)), func(set string) bool { return !strings.HasPrefix(set, cluster.Name+"-") })
		}
		parts = append(parts, part{"deployment", fmt.Sprintf("%s, %d members in %s", cluster.Name, len(sets)*members[sets[0]], strings.Join(sets, ", "))})
	}
	return parts
}

func (k *deploymentKind) rotations() []rotation {
	return []rotation{{
		name:       "deployment",
		workflowID: workflows.RotateDeploymentID(workflows.DefaultConnection, project),
		flags:      []string{"--deployment", "--project", project},
		// Short timeouts, because agents and snapshots are looked at the more often.
		settings: []string{"--concurrency", "2", "--deploy-timeout", workflows.Duration(deployTimeout).String(), "--proof-timeout", workflows.Duration(proofTimeout).String()},
	}}
}

func (k *deploymentKind) verify(om *simulator.Server, reports [][]byte) (verification, error) {
	var result workflows.RotateDeploymentResult
	if err := json.Unmarshal(reports[0], &result); err != nil {
		return verification{}, fmt.Errorf("reading the report of the deployment: %w", err)
	}
	return verifyDeployment(om.Summary().Deployments[0], om.Ledger().Puts(project), result), nil
}

// verifyDeployment verifies the records of one rotation of every process, where the
// ledger has nothing else.
func verifyDeployment(deployment simulator.DeploymentSummary, puts []simulator.Publication, result workflows.RotateDeploymentResult) verification {
	v := verification{counted: "New keys"}
	recorded := map[string]workflows.ProcessRecord{}
	for _, record := range result.Targets {
		recorded[record.Process] = record
	}
	newKeys := map[string][]string{} // by replica set
	for _, process := range deployment.Processes {
		if process.Key == "" { // a mongos has none
			continue
		}
		newKeys[process.ReplicaSet] = append(newKeys[process.ReplicaSet], newKeysOf(process)...)
		v.addTarget(verifyProcess(process, recorded))
		delete(recorded, process.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(recorded)) {
		v.add("%s: Ops Manager has no such process", name)
	}
	for _, set := range slices.Sorted(maps.Keys(newKeys)) {
		if key := provenKey(result, set); !slices.Contains(newKeys[set], key) {
			v.add("replica set %s: the proven key is %q, which is none of its new ones", set, key)
		}
	}
	changed := 0
	for _, put := range puts {
		if !put.Applied {
			v.add("a PUT was not applied")
		}
		for _, change := range slices.Concat(put.Changes, put.Overwrote) {
			changed += max(change.RemovedBytes, change.AddedBytes)
			v.add("a PUT changed %q to %q at %s", change.Removed, change.Added, change.Path)
		}
	}
	for _, violation := range deployment.Violations {
		v.add("%s", violation)
	}
	v.matching = fmt.Sprintf("%d processes with one new key each; %d PUTs, which changed %d bytes besides the times; a new key of each of %d replica sets is proven",
		len(v.targets), len(puts), changed, len(newKeys))
	return v
}

func newKeysOf(process simulator.ProcessSummary) (keys []string) {
	for _, rotated := range process.Rotations {
		keys = append(keys, rotated.NewKey)
	}
	return keys
}

func verifyProcess(process simulator.ProcessSummary, recorded map[string]workflows.ProcessRecord) targetVerification {
	v := targetVerification{name: process.Name, count: len(process.Rotations)}
	if len(process.Rotations) == 1 {
		v.previousKey, v.newKey = process.Rotations[0].PreviousKey, process.Rotations[0].NewKey
	}
	record, found := recorded[process.Name]
	if !found {
		v.add("it has no record")
		return v
	}
	v.problems = append(v.problems, invariants.CheckProcess(process, record)...)
	return v
}

// provenKey is the new key that a snapshot has proven of a replica set; "" = none.
func provenKey(result workflows.RotateDeploymentResult, set string) string {
	for _, record := range result.Targets {
		if record.ReplicaSet == set && record.Status == workflows.StatusVerified {
			return record.NewKeyUUID
		}
	}
	for _, record := range result.ReplicaSets {
		if record.ReplicaSet == set && record.ProvenBy != "" {
			return record.NewKeyUUID
		}
	}
	return ""
}

func (k *deploymentKind) nextSteps(s *sandbox) []nextStep {
	r := k.rotations()[0]
	return []nextStep{
		{"Show what would be rotated; nothing is changed", []string{keyturn(r.arguments("plan")...)}},
		{"Rotate again, with a key that the KMIP server says is new, and show the records", []string{
			keyturn(r.rotateArguments("--proof", string(workflows.ProofKMIP), "--wait")...),
			keyturn(r.arguments("report", "-o", "json")...),
			keyturn(r.arguments("report", "-o", "html")...) + " > report.html",
		}},
		{"List the keys, and what the KMIP server says about each", []string{keyturn("keys")}},
		{"Do the same with the Temporal CLI, or any other client; here, the agents' reports are enough", []string{
			s.temporalCommand("start", "--type", workflows.RotateDeploymentType, "--task-queue", workflows.DefaultTaskQueue,
				"--workflow-id", r.workflowID, "--input", jsonOf(workflows.RotateDeploymentInput{
					ProjectID: project, Concurrency: 2, Proof: workflows.ProofAgent, DeployTimeout: workflows.Duration(deployTimeout),
				})),
			keyturn(r.arguments("watch")...),
			s.temporalCommand("query", "--workflow-id", r.workflowID, "--type", workflows.ProgressQuery),
		}},
		{"Simulate a failure: a mongod does not start, the rotation is held (exit status 3); the cause is corrected, an operator retries it", []string{
			s.controlCommand("deployments", agentsOf(stuckProcess, stuckAgent)),
			keyturn(r.rotateArguments("--wait")...),
			s.controlCommand("deployments", agentsOf(stuckProcess, simulator.Agent{})),
			keyturn(r.arguments("retry", "--by", "operator")...),
			keyturn(r.arguments("watch")...),
		}},
		{"Ask for the keys of the same cluster's backup: NotServed names the command for its deployment", []string{
			keyturn("rotate", "--project", project, "--cluster", k.deployment.ClusterIDs[1], "--wait"),
		}},
	}
}

// stuckAgent cannot start its mongod again.
var stuckAgent = simulator.Agent{ErrorCode: 143, ErrorText: "Failed to start mongod: the KMIP server cannot be reached"}

// agentsOf is the body of a request that changes one agent of the deployment.
func agentsOf(process string, agent simulator.Agent) any {
	return map[string]any{"projectId": project, "agents": map[string]simulator.Agent{process: agent}}
}
