package randomized

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// maxRuns ends a rotation that continues as new without end.
const maxRuns = 40

// rotation is one rotation of the environment's cluster, with all its runs.
type rotation struct {
	env         *env
	plan        *rotationPlan
	input       workflows.RotateClusterInput
	operator    *operator
	transitions atomic.Int64 // starts and ends of activity attempts
	runs        []*run

	mu            sync.Mutex
	attemptFaults map[job][]attemptFault

	// log lists what was done to the rotation.
	log []string
	// resetAt is the time of the last workflow reset.
	resetAt time.Time

	// The outcome.
	result   *workflows.RotateClusterResult
	err      error
	requests []simulator.Request
	applied  []simulator.Rotation
}

func (e *env) newRotation(p *rotationPlan, completed []workflows.TargetRecord) *rotation {
	r := &rotation{env: e, plan: p, input: p.input, attemptFaults: map[job][]attemptFault{}}
	r.input.ClusterID, r.input.Completed = e.clusterID, completed
	for j, faults := range p.attemptFaults {
		r.attemptFaults[j] = slices.Clone(faults)
	}
	r.operator = newOperator(r)
	return r
}

// nextAttemptFault returns the fault of the next attempt of a job.
func (r *rotation) nextAttemptFault(j job) attemptFault {
	r.mu.Lock()
	defer r.mu.Unlock()
	faults := r.attemptFaults[j]
	if len(faults) == 0 {
		return attemptFault{end: completes}
	}
	r.attemptFaults[j] = faults[1:]
	return faults[0]
}

// alwaysKnowsFirstAttempts reports whether every run can prove for each target whether
// one of the rotation's PUTs may have changed its key.
func (r *rotation) alwaysKnowsFirstAttempts() bool {
	return r.plan.alwaysKnowsFirstAttempts() && len(r.input.Completed) == 0
}

// rotate runs the rotation until it has ended and no request is pending.
func (r *rotation) rotate() {
	before := r.env.om.Ledger()
	r.env.inject(r.plan.faults)
	ctx, end := context.WithCancel(context.Background())
	var thawing sync.WaitGroup
	if r.plan.standsStill() {
		thawing.Go(func() { r.env.thaw(ctx) })
	}
	r.runAll()
	end()
	thawing.Wait()
	r.env.waitUntilIdle()
	after := r.env.om.Ledger()
	r.requests = after.Requests[len(before.Requests):]
	r.applied = after.Rotations[len(before.Rotations):]
	r.env.counters.addRequests(r.requests)
}

func (r *rotation) runAll() {
	next := r.newRun([]any{r.input})
	next.original = next.id
	for len(r.runs) < maxRuns {
		r.runs = append(r.runs, next)
		r.result, r.err = next.execute()
		arguments, continues := continuation(r.err)
		switch {
		case next.isTerminated():
			next = r.reset()
		case continues:
			next = r.continueFrom(next, arguments)
		case r.plan.resetOnce && r.resetAt.IsZero() && !r.input.DryRun:
			next = r.reset()
		default:
			return
		}
	}
	r.err = fmt.Errorf("%w: %d runs", errNotCompleted, len(r.runs))
}

// logf records what is done to the rotation.
func (r *rotation) logf(format string, args ...any) {
	r.log = append(r.log, time.Now().Format(clock)+" "+fmt.Sprintf(format, args...))
}

func (r *rotation) newRun(arguments []any) *run {
	return &run{
		r: r, id: fmt.Sprintf("run-%d", len(r.runs)+1), arguments: arguments, terminated: make(chan struct{}),
		executions: map[string]*execution{}, attempted: map[job]bool{},
	}
}

func (r *rotation) continueFrom(last *run, arguments []any) *run {
	r.env.counters.add("continue-as-news", 1)
	next := r.newRun(arguments)
	next.original, next.continued = next.id, last.id
	r.logf("%s continues as %s", last.id, next.id)
	return next
}

// reset copies a run, usually the last one, with a part of its history. What
// was done in the dropped part stays done.
func (r *rotation) reset() *run {
	r.env.counters.add("workflow resets", 1)
	r.resetAt = time.Now()
	base := r.runs[len(r.runs)-1]
	if first := r.runs[0]; r.plan.kept%4 == 0 && first.hasRotated() {
		base = first
	}
	next := r.newRun(base.arguments)
	next.original, next.continued = base.id, base.continued
	next.kept = base.keep(r.plan.kept)
	r.logf("%s is reset to %s, which keeps %d activities", base.id, next.id, len(next.kept))
	r.operator.afterReset()
	return next
}

// keep returns the part of a run's history that a reset keeps: up to a point
// after the keys were read if anything was done after that. (By the contract, a
// reset to a point before that is a new rotation.)
func (r *run) keep(percent int) []completion {
	r.mu.Lock()
	defer r.mu.Unlock()
	least := 0
	if len(r.r.runs) > 1 || r.hasRotated() {
		// Between the first reading and the one after approval, too; but a key
		// that someone else replaced there would be taken for the rotation's.
		isReading := func(c completion) bool { return c.activity == activities.ReadKeysName }
		least = 1 + slices.IndexFunc(r.completed, isReading)
		if r.r.plan.operator.decision == approveChanged {
			least = 1 + lastIndex(r.completed, isReading)
		}
	}
	kept := least + (len(r.completed)-least)*percent/100
	return slices.Clone(r.completed[:kept])
}

// hasRotated reports whether the run has started to rotate a target.
func (r *run) hasRotated() bool {
	for j := range r.attempted {
		if j.activity == activities.RotateKeyName {
			return true
		}
	}
	return false
}

func lastIndex[T any](list []T, fulfils func(T) bool) int {
	for i := len(list) - 1; i >= 0; i-- {
		if fulfils(list[i]) {
			return i
		}
	}
	return -1
}
