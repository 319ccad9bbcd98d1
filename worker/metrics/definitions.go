package metrics

import (
	"slices"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"keyturn/activities"
	"keyturn/workflows"
)

// The metrics that are counted here, and not by workflows and activities.
const (
	buildInfo       = "keyturn_build_info"
	ready           = "keyturn_ready"
	rotationsOpen   = "keyturn_rotations_open"
	rotationsIdle   = "keyturn_rotations_idle_seconds"
	schedulePaused  = "keyturn_schedule_paused"
	requests        = "keyturn_opsmanager_requests_total"
	requestDuration = "keyturn_opsmanager_request_duration_seconds"
	requestsFlying  = "keyturn_opsmanager_requests_in_flight"
	calls           = "keyturn_opsmanager_calls_total"
	limitWait       = "keyturn_opsmanager_limit_wait_seconds_total"
	lastRead        = "keyturn_opsmanager_last_read_timestamp_seconds"
	ledgerAnswered  = "keyturn_ledger_last_answer_timestamp_seconds"
)

const (
	versionLabel  = "version"
	phaseLabel    = "phase"
	scheduleLabel = "schedule"
	methodLabel   = "method"
	codeLabel     = "code"

	connectionLabel = workflows.ConnectionLabel
)

// activityTypeLabel is the SDK's, on what an activity counts.
const activityTypeLabel = "activity_type"

// definition is one of keyturn's own metrics. docs/metrics.md has the same, and
// a test compares.
type definition struct {
	name   string
	labels []string // all others are left out
	help   string
	bounds []float64 // of a histogram
}

var definitions = []definition{
	{workflows.RotationsEndedMetric, []string{workflows.OutcomeLabel, workflows.ErrorLabel}, "Rotations that ended, and inputs that were refused.", nil},
	{
		workflows.RotationDurationMetric, []string{workflows.OutcomeLabel}, "Duration of a rotation, including the time spent waiting for people.",
		[]float64{1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 3 * 24 * 3600, 7 * 24 * 3600},
	},
	{workflows.TargetsEndedMetric, []string{workflows.StatusLabel, workflows.ErrorLabel}, "Targets that finished; a retried target counts again.", nil},
	{workflows.TargetsAmbiguousMetric, []string{workflows.StatusLabel}, "Targets with a PUT of unknown outcome, by their final status.", nil},
	{workflows.LastVerifiedMetric, []string{connectionLabel, workflows.ProjectLabel, workflows.ClusterLabel}, "When the oldest key of the cluster was verified, in rotations of the ledger and of this worker; 0 = the ledger has rotations, and none of every target.", nil},
	{activities.LedgerEntriesMetric, []string{activities.SourceLabel}, "Rotations that the ledger has recorded; a repeated record counts again.", nil},
	{activities.LedgerFailuresMetric, []string{workflows.ErrorLabel}, "Failed attempts to record a rotation in the ledger.", nil},
	{activities.EventFailuresMetric, []string{activities.EventTypeLabel}, "Failed attempts to send an event.", nil},
	{activities.EventsEndedMetric, []string{activities.EventTypeLabel, workflows.OutcomeLabel}, "Events that were delivered (accepted by the receiver), or still undelivered after a day of retries.", nil},
	{ledgerAnswered, nil, "When the ledger last answered a check; the worker's start if it has not answered yet.", nil},
	{activities.RetriesMetric, []string{activityTypeLabel, workflows.ErrorLabel}, "Failed attempts that are retried.", nil},
	{requests, []string{connectionLabel, methodLabel, codeLabel}, "Requests to Ops Manager, including digest challenges (401); code none = no response.", nil},
	{
		requestDuration, []string{connectionLabel, methodLabel}, "Time from sending a request to Ops Manager to the end of its response.",
		[]float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60},
	},
	{requestsFlying, []string{connectionLabel}, "Requests to Ops Manager in flight.", nil},
	{calls, []string{connectionLabel, methodLabel, workflows.ErrorLabel}, "Calls to Ops Manager, by error type; a call includes its digest challenges.", nil},
	{limitWait, []string{connectionLabel}, "Time that requests waited for this worker's limits and for pauses after a 429.", nil},
	{lastRead, []string{connectionLabel}, "When Ops Manager last answered an authenticated read.", nil},
	{rotationsOpen, []string{phaseLabel}, "Open rotations of the task queue, read from Temporal; all workers report the same, so use the maximum.", nil},
	{rotationsIdle, []string{phaseLabel}, "Longest time without progress of an open rotation.", nil},
	{schedulePaused, []string{scheduleLabel}, "1 = a failed run has paused the schedule, which starts nothing until someone unpauses it.", nil},
	{ready, nil, "1 = ready, as reported by /readyz.", nil},
	{buildInfo, []string{versionLabel}, "1, with the worker's version.", nil},
}

// sdkBounds are the buckets of the SDK's own times, in seconds.
var sdkBounds = []float64{0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300}

// views give the metrics their description, labels and buckets: those that are
// counted through the SDK's handler have none of that by themselves.
func views() []sdkmetric.View {
	made := []sdkmetric.View{sdkmetric.NewView(
		sdkmetric.Instrument{Name: "temporal_*", Kind: sdkmetric.InstrumentKindHistogram},
		sdkmetric.Stream{Aggregation: sdkmetric.AggregationExplicitBucketHistogram{Boundaries: sdkBounds}},
	)}
	for _, d := range definitions {
		stream := sdkmetric.Stream{Description: d.help, AttributeFilter: d.keeps}
		if d.bounds != nil {
			stream.Aggregation = sdkmetric.AggregationExplicitBucketHistogram{Boundaries: d.bounds}
		}
		made = append(made, sdkmetric.NewView(sdkmetric.Instrument{Name: d.name}, stream))
	}
	return made
}

func (d definition) keeps(label attribute.KeyValue) bool {
	return slices.Contains(d.labels, string(label.Key))
}
