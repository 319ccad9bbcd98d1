package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/invariants"
	"keyturn/workflows"
)

// clusterKind shows RotateCluster: the keys of backups of sharded clusters, by an
// Ops Manager that serves them.
type clusterKind struct {
	settings settings
	clusters []simulator.ShardedCluster
}

func (k *clusterKind) serviceVersion() string { return simulator.DefaultServiceVersion }

// populate adds the clusters orders, orders2 and so on.
func (k *clusterKind) populate(om *simulator.Server) (parts []part) {
	for i := range k.settings.clusters {
		cluster := om.AddShardedCluster(project, numberedName("orders", i), k.settings.shards)
		k.clusters = append(k.clusters, cluster)
		parts = append(parts, part{"cluster", fmt.Sprintf("%s, %d targets: its shards and its config server", cluster.Name, len(cluster.TargetIDs()))})
	}
	return parts
}

// numberedName is name, name2, name3 and so on.
func numberedName(name string, i int) string {
	if i == 0 {
		return name
	}
	return name + strconv.Itoa(i+1)
}

func (k *clusterKind) rotations() (all []rotation) {
	for _, cluster := range k.clusters {
		all = append(all, rotationOf(cluster))
	}
	return all
}

func rotationOf(cluster simulator.ShardedCluster) rotation {
	return rotation{
		name:       cluster.Name,
		workflowID: workflows.RotateClusterID(workflows.DefaultConnection, cluster.ProjectID, cluster.ID),
		flags:      []string{"--project", cluster.ProjectID, "--cluster", cluster.ID},
	}
}

func (k *clusterKind) verify(om *simulator.Server, reports [][]byte) (verification, error) {
	var records []workflows.TargetRecord
	for i, report := range reports {
		var result workflows.RotateClusterResult
		if err := json.Unmarshal(report, &result); err != nil {
			return verification{}, fmt.Errorf("reading the report of %s: %w", k.clusters[i].Name, err)
		}
		records = append(records, result.Targets...)
	}
	return verifyClusters(om.Summary(), om.Ledger(), records), nil
}

// verifyClusters iterates over the ledger's targets, so that it also finds a target
// without a record. The records are of one rotation of each target, and the
// ledger has nothing else.
func verifyClusters(summary simulator.Summary, ledger simulator.Ledger, records []workflows.TargetRecord) verification {
	recorded := map[string][]workflows.TargetRecord{}
	for _, record := range records {
		recorded[record.ClusterID] = append(recorded[record.ClusterID], record)
	}
	puts := len(ledger.Select(isPutOfKey))
	v := verification{
		counted:  "PUTs",
		matching: fmt.Sprintf("%d targets, %d PUTs, each new key witnessed by the KMIP server", len(summary.Targets), puts),
	}
	for _, target := range summary.Targets {
		v.addTarget(verifyTarget(target, ledger.Count(http.MethodPut, target.ID), recorded[target.ID]))
		delete(recorded, target.ID)
	}
	for _, id := range slices.Sorted(maps.Keys(recorded)) {
		v.add("%s (%s): Ops Manager has no such target", recorded[id][0].Name, id)
	}
	if puts != len(v.targets) {
		v.add("the ledger has %d PUTs for %d targets", puts, len(v.targets))
	}
	return v
}

func isPutOfKey(r simulator.Request) bool {
	return r.Method == http.MethodPut && r.Kind == simulator.KindKey && r.Authenticated
}

func verifyTarget(target simulator.TargetSummary, puts int, records []workflows.TargetRecord) targetVerification {
	v := targetVerification{name: target.Name, count: puts}
	if puts != 1 {
		v.add("the ledger has %d PUTs, expected 1", puts)
	}
	if len(target.Rotations) == 1 {
		v.previousKey, v.newKey = target.Rotations[0].PreviousKey, target.Rotations[0].NewKey
	} else {
		v.add("%d PUTs were applied, expected 1", len(target.Rotations))
	}
	if target.Key != v.newKey {
		v.add("its current key is %q, the PUT created %q", target.Key, v.newKey)
	}
	if len(records) != 1 {
		v.add("it has %d records, expected 1", len(records))
		return v
	}
	if status := records[0].Status; status != workflows.StatusVerified {
		v.add("its record is %s, expected %s", status, workflows.StatusVerified)
	}
	if evidence := records[0].KMIP; evidence == nil || evidence.Outcome != workflows.EvidenceWitnessed {
		v.add("the KMIP server has not witnessed its new key")
	}
	v.problems = append(v.problems, invariants.CheckRecord(target.Rotations, records[0])...)
	return v
}

func (k *clusterKind) nextSteps(s *sandbox) []nextStep {
	r := k.rotations()[0]
	return []nextStep{
		{"Show what would be rotated, with current keys; nothing is changed", []string{keyturn(r.arguments("plan")...)}},
		{"Rotate again and show the records", []string{
			keyturn(r.rotateArguments("--wait")...),
			keyturn(r.arguments("report", "-o", "json")...),
			keyturn(r.arguments("report", "-o", "html")...) + " > report.html",
		}},
		{"List the keys, and what the KMIP server says about each", []string{keyturn("keys")}},
		{"Do the same with the Temporal CLI, or any other client", []string{
			s.temporalCommand("start", "--type", workflows.RotateClusterType, "--task-queue", workflows.DefaultTaskQueue,
				"--workflow-id", r.workflowID, "--input", inputFor(k.clusters[0])),
			keyturn(r.arguments("watch")...),
			s.temporalCommand("query", "--workflow-id", r.workflowID, "--type", workflows.ProgressQuery),
		}},
		{"Simulate a failure: Ops Manager refuses one PUT, the rotation is held (exit status 3), an operator retries it", []string{
			s.controlCommand("faults", refusalFor(k.clusters[0])),
			// After an operator's retry, the key is read for the settle time
			// first: half a minute by default.
			keyturn(r.rotateArguments("--wait", "--settle-time", "2s")...),
			keyturn(r.arguments("retry", "--by", "operator")...),
			keyturn(r.arguments("watch")...),
		}},
	}
}

// refusalFor is a fault that no retry fixes. It applies once, to the second
// target's PUT, so that the first target stays verified.
func refusalFor(cluster simulator.ShardedCluster) simulator.Fault {
	return simulator.Fault{
		Method: http.MethodPut, Kind: simulator.KindKey, ClusterID: cluster.TargetIDs()[1], Apply: simulator.ApplyNo,
		Status: http.StatusForbidden, Body: `{"error":403,"errorCode":"IP_ADDRESS_NOT_ON_ACCESS_LIST"}`,
	}
}

func inputFor(cluster simulator.ShardedCluster) string {
	return jsonOf(workflows.RotateClusterInput{ProjectID: cluster.ProjectID, ClusterID: cluster.ID})
}
