package main

import (
	"encoding/json"
	"reflect"
	"time"

	"github.com/invopop/jsonschema"

	"keyturn/activities"
	"keyturn/internal/ledgerentry"
	"keyturn/workflows"
)

const (
	idPattern         = "^[0-9a-fA-F]{24}$"
	connectionPattern = "^[A-Za-z0-9_-]{1,64}$"
	// number of a duration, with or without a fraction.
	durationNumber  = `([0-9]+\.?[0-9]*|\.[0-9]+)`
	durationPattern = `^[+-]?(0|` + durationNumber + `d|(` + durationNumber + `d)?(` + durationNumber + `(h|m|s|ms|us|µs|μs|ns))+)$`
	// textPattern refuses control characters. They stand in it as they are: not every
	// dialect of regular expressions has the same escapes for them.
	textPattern = "^[^\x00-\x08\x0b-\x1f\x7f-\u009f]*$"
	// namePattern has a character that is not blank.
	namePattern = `\S`

	maxName     = 256
	maxText     = 2_000
	maxEvidence = 200
	maxRecords  = 5_000
)

func number(n string) json.Number { return json.Number(n) }

func limit(n uint64) *uint64 { return &n }

// stringType is the schema of a type whose JSON is a string.
func stringType(description string, values ...string) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "string", Description: description}
	for _, value := range values {
		s.Enum = append(s.Enum, value)
	}
	return s
}

func named[T ~string](values ...T) (texts []string) {
	for _, value := range values {
		texts = append(texts, string(value))
	}
	return texts
}

// types are the schemas of types that are more than their kind.
var types = map[reflect.Type]*jsonschema.Schema{
	reflect.TypeFor[time.Time](): {Type: "string", Format: "date-time"},
	reflect.TypeFor[workflows.Duration](): {
		Type: "string", Pattern: durationPattern, Examples: []any{"15m", "72h", "7d", "1d12h"},
	},
	reflect.TypeFor[workflows.OnFailure](): stringType("", named(workflows.OnFailureHold, workflows.OnFailureContinue, workflows.OnFailureStop)...),
	reflect.TypeFor[workflows.FleetKind](): stringType("", named(workflows.FleetOfClusters, workflows.FleetOfDeployments)...),
	reflect.TypeFor[workflows.Proof]():     stringType("", named(workflows.ProofAgent, workflows.ProofSnapshot, workflows.ProofKMIP)...),
	reflect.TypeFor[workflows.Status](): stringType("", named(workflows.StatusPending, workflows.StatusPlanned, workflows.StatusRotating,
		workflows.StatusRotated, workflows.StatusVerified, workflows.StatusSkipped, workflows.StatusFailed)...),
	reflect.TypeFor[workflows.Phase](): stringType("", named(workflows.PhaseListing, workflows.PhaseReading, workflows.PhaseAwaitingApproval,
		workflows.PhaseRotating, workflows.PhasePaused, workflows.PhaseHeld, workflows.PhaseRecording, workflows.PhaseDone)...),
	reflect.TypeFor[workflows.Outcome](): stringType("", named("", workflows.OutcomeRotated, workflows.OutcomeRotatedWithSkips,
		workflows.OutcomeRotatedUnproven, workflows.OutcomePlanned, workflows.OutcomePartial, workflows.OutcomeNothingRotated)...),
	reflect.TypeFor[workflows.Role]():     stringType("", named(workflows.RoleShard, workflows.RoleConfigServer, workflows.RoleReplicaSet)...),
	reflect.TypeFor[workflows.ProvenBy](): stringType("", named("", workflows.ProvenBySnapshot, workflows.ProvenByKMIP, workflows.ProvenByBoth)...),
	reflect.TypeFor[workflows.EvidenceOutcome](): stringType("", named(workflows.EvidenceWitnessed, workflows.EvidenceAbsent,
		workflows.EvidenceForbidden, workflows.EvidenceUnreachable)...),
	reflect.TypeFor[workflows.LeftOutReason](): stringType("", named(workflows.LeftOutBusy, workflows.LeftOutNotEncrypted,
		workflows.LeftOutGone, workflows.LeftOutNotStarted)...),
	reflect.TypeFor[workflows.Verdict]():  stringType("", named(activities.Verdicts...)...),
	reflect.TypeFor[ledgerentry.Kind]():   stringType("", named(ledgerentry.KindCluster, ledgerentry.KindDeployment, ledgerentry.KindFleet)...),
	reflect.TypeFor[ledgerentry.Source](): stringType("", named(ledgerentry.SourceWorkflow, ledgerentry.SourceReconciled)...),
}

// A rule changes the schema of a field of an input.
type rule func(*jsonschema.Schema)

func pattern(p string) rule { return func(s *jsonschema.Schema) { s.Pattern = p } }

func between(lowest, highest string) rule {
	return func(s *jsonschema.Schema) { s.Minimum, s.Maximum = number(lowest), number(highest) }
}

func atLeast0(s *jsonschema.Schema) { s.Minimum = number("0") }

func text(longest uint64) rule {
	return func(s *jsonschema.Schema) { s.MaxLength, s.Pattern = limit(longest), textPattern }
}

// anyText takes what another version may write there.
func anyText(s *jsonschema.Schema) {
	*s = jsonschema.Schema{Type: "string", Description: s.Description}
}

func anyName(s *jsonschema.Schema) { anyText(s); text(maxName)(s) }

func nonEmpty(s *jsonschema.Schema) { text(maxName)(s); s.MinLength = limit(1) }

func orEmpty(s *jsonschema.Schema) { s.Enum = append([]any{""}, s.Enum...) }

func atMost(n uint64) rule { return func(s *jsonschema.Schema) { s.MaxItems = limit(n) } }

func ids(n uint64) rule {
	return func(s *jsonschema.Schema) { s.MaxItems, s.Items.Pattern = limit(n), idPattern }
}

// settings are those of every rotation.
var settings = map[string]rule{"concurrency": between("1", "64")}

// inputRules are those of an input's fields, by the name of their definition.
var inputRules = map[string]map[string]rule{
	"RotateClusterInput": {
		"connection": pattern(connectionPattern), "projectId": pattern(idPattern), "clusterId": pattern(idPattern),
		"expectedTargets": between("0", "5000"), "completed": atMost(maxRecords), "concurrency": settings["concurrency"],
	},
	"RotateDeploymentInput": {
		"connection": pattern(connectionPattern), "projectId": pattern(idPattern), "clusterIds": ids(1_000),
		"expectedTargets": between("0", "3000"), "completed": atMost(3_000), "concurrency": settings["concurrency"],
	},
	"RotateFleetInput": {
		"connection": pattern(connectionPattern), "projectIds": ids(1_000), "excludeProjectIds": ids(1_000),
		"clusterNames": text(1_000), "clustersAtATime": between("1", "100"), "maxFailedClusters": between("0", "1000000"),
	},
	"FleetRotation":     settings,
	"ListClustersInput": {"connection": pattern(connectionPattern), "projectIds": ids(1_000), "excludeProjectIds": ids(1_000)},
	"ListKeysInput":     {"connection": pattern(connectionPattern), "projectIds": ids(1_000), "excludeProjectIds": ids(1_000)},
	"Change":            {"ticket": text(maxName), "requestedBy": text(maxName), "reason": text(maxText)},
	"ApproveRequest":    {"by": operator, "comment": text(maxText)},
	"OperatorRequest":   {"by": operator, "reason": text(maxText)},
	"RetryRequest":      {"by": operator, "targets": atMost(maxRecords)},
	"SkipRequest":       {"by": operator, "targets": someTargets, "reason": text(maxText)},
	"TargetRecord": {
		"clusterId": pattern(idPattern), "name": text(maxName), "role": anyText, "status": orEmpty, "attempts": atLeast0,
		"previousKeyUUID": text(maxName), "newKeyUUID": text(maxName), "replacedOutside": text(maxName),
	},
	"ProcessRecord": {
		"process": nonEmpty, "host": text(maxName), "replicaSet": text(maxName), "clusterName": text(maxName), "role": anyText,
		"status": orEmpty, "previousRotateAt": text(maxName), "previousKeyUUID": text(maxName), "newKeyUUID": text(maxName),
		"snapshotId": text(maxName), "provenBy": anyName,
	},
	"Evidence": {"state": text(maxEvidence), "algorithm": text(maxEvidence), "name": text(maxEvidence), "length": atLeast0},
}

func operator(s *jsonschema.Schema) {
	text(maxName)(s)
	s.AllOf = []*jsonschema.Schema{{Pattern: namePattern}}
}

func someTargets(s *jsonschema.Schema) { s.MinItems, s.MaxItems = limit(1), limit(maxRecords) }

// required are the fields that a record of an earlier run must have in an input, and
// those that every record of a result has: the largest results leave out empty ones.
var required = map[string]struct{ inInput, inResult []string }{
	"TargetRecord":  {[]string{"clusterId"}, []string{"clusterId", "name", "role", "status"}},
	"ProcessRecord": {[]string{"process"}, []string{"process", "host", "replicaSet", "clusterId", "clusterName", "role", "status"}},
	"TargetError":   {[]string{}, []string{"type", "message"}},
	"Evidence":      {[]string{"outcome"}, []string{"outcome"}},
	"ClusterRef":    {[]string{}, []string{"projectId", "clusterId"}},
}
