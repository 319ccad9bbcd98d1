package campaign

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// maxRuns ends a rotation whose runs continue without end.
const maxRuns = 40

// rotation is one rotation of the world's cluster, from its start to its end,
// over all its runs.
type rotation struct {
	w        *world
	plan     *rotationPlan
	input    workflows.RotateClusterInput
	operator *operator
	events   atomic.Int64 // starts and ends of attempts
	runs     []*run

	mu    sync.Mutex
	fates map[job][]fate

	// deeds are what was done to the rotation, in words.
	deeds []string
	// resetAt is when the workflow was reset last.
	resetAt time.Time

	// What came of it.
	result   *workflows.RotateClusterResult
	err      error
	requests []simulator.Request
	applied  []simulator.Rotation
}

func (w *world) newRotation(p *rotationPlan, completed []workflows.TargetRecord) *rotation {
	r := &rotation{w: w, plan: p, input: p.input, fates: map[job][]fate{}}
	r.input.ClusterID, r.input.Completed = w.clusterID, completed
	for j, fates := range p.fates {
		r.fates[j] = slices.Clone(fates)
	}
	r.operator = newOperator(r)
	return r
}

// nextFate is what befalls the next attempt of a job.
func (r *rotation) nextFate(j job) fate {
	r.mu.Lock()
	defer r.mu.Unlock()
	fates := r.fates[j]
	if len(fates) == 0 {
		return fate{end: byItself}
	}
	r.fates[j] = fates[1:]
	return fates[0]
}

// rotate runs the rotation until it has ended and nothing is left in flight.
func (r *rotation) rotate() {
	before := r.w.om.Ledger()
	r.w.inject(r.plan.faults)
	r.runAll()
	r.w.quiet()
	after := r.w.om.Ledger()
	r.requests = after.Requests[len(before.Requests):]
	r.applied = after.Rotations[len(before.Rotations):]
	r.w.tally.requests(r.requests)
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
	r.err = fmt.Errorf("%w: %d runs", errNeverEnded, len(r.runs))
}

// tell writes down what is done to the rotation.
func (r *rotation) tell(format string, args ...any) {
	r.deeds = append(r.deeds, time.Now().Format(clock)+" "+fmt.Sprintf(format, args...))
}

func (r *rotation) newRun(arguments []any) *run {
	return &run{
		r: r, id: fmt.Sprintf("run-%d", len(r.runs)+1), arguments: arguments, terminated: make(chan struct{}),
		executions: map[string]*execution{}, attempted: map[job]bool{},
	}
}

func (r *rotation) continueFrom(last *run, arguments []any) *run {
	r.w.tally.add("continue-as-news", 1)
	next := r.newRun(arguments)
	next.original, next.continued = next.id, last.id
	r.tell("%s continues as %s", last.id, next.id)
	return next
}

// reset copies a run, mostly the last one, with a part of its history. What the
// history then lacks may have been done all the same.
func (r *rotation) reset() *run {
	r.w.tally.add("workflow resets", 1)
	r.resetAt = time.Now()
	base := r.runs[len(r.runs)-1]
	if first := r.runs[0]; r.plan.kept%4 == 0 && first.hasRotated() {
		base = first
	}
	next := r.newRun(base.arguments)
	next.original, next.continued = base.id, base.continued
	next.kept = base.keep(r.plan.kept)
	r.tell("%s is reset to %s, which keeps %d activities", base.id, next.id, len(next.kept))
	r.operator.afterReset()
	return next
}

// keep gives the part of a run's history that a reset keeps: up to a moment
// after the reading of the keys, if anything was done after it. (A reset to
// before the reading makes another rotation of it, by the contract.)
func (r *run) keep(percent int) []completion {
	r.mu.Lock()
	defer r.mu.Unlock()
	least := 0
	if len(r.r.runs) > 1 || r.hasRotated() {
		least = 1 + lastIndex(r.completed, func(c completion) bool { return c.activity == activities.ReadKeysName })
	}
	kept := least + (len(r.completed)-least)*percent/100
	return slices.Clone(r.completed[:kept])
}

// hasRotated tells whether the run has begun to rotate a target.
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
