package randomized

import (
	"flag"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"keyturn/testsuite/simulator"
)

var (
	seeds       = flag.Int("seeds", defaultSeeds, "number of seeds")
	from        = flag.Uint64("from", 1, "the first seed")
	oneSeed     = flag.Uint64("seed", 0, "run only this seed")
	concurrency = flag.Int("at-a-time", 16, "number of seeds that run in parallel; they spend most of their time waiting")
)

// seedLimit limits the time of one seed. The longest seeds take a few seconds.
const seedLimit = 90 * time.Second * timeScale

// maxFailures is the number of failed seeds after which the test stops.
const maxFailures = 25

func TestRandomizedRotations(t *testing.T) {
	first, n := *from, *seeds
	if *oneSeed != 0 {
		first, n = *oneSeed, 1
	}
	s := seedRunner{t: t, counters: newCounters(), verbose: *oneSeed != 0, stalls: watchForStalls()}
	defer s.stalls.stop()
	s.run(first, n)
	t.Logf("%d seeds from %d in %s, of which %d failed:\n%s", s.done, first, time.Since(s.started).Round(time.Second), s.failed, s.counters)
}

// seedRunner runs seeds and collects their results.
type seedRunner struct {
	t        *testing.T
	counters *counters
	started  time.Time
	verbose  bool
	stalls   *stalls

	mu           sync.Mutex
	done, failed int
}

func (s *seedRunner) run(first uint64, n int) {
	s.started = time.Now()
	s.counters.add("PUTs applied twice", 0)
	next := make(chan uint64)
	var workers sync.WaitGroup
	for range min(*concurrency, n) {
		workers.Go(func() {
			for seed := range next {
				s.runSeed(seed)
			}
		})
	}
	for i := range uint64(n) {
		if s.hasFailed() {
			break
		}
		next <- first + i
	}
	close(next)
	workers.Wait()
}

func (s *seedRunner) hasFailed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed >= maxFailures
}

// runSeed runs a seed. Violations found while the machine stalled count only if
// they are found again.
func (s *seedRunner) runSeed(seed uint64) {
	p := generate(seed)
	for run := 1; ; run++ {
		started := time.Now()
		found, description := s.runWithTimeout(p)
		if len(found) == 0 || run == maxRunsOfSeed || !s.stalls.since(started) {
			s.report(p, found, description)
			return
		}
		s.counters.add("runs with violations while the machine stalled, repeated", 1)
		s.t.Logf("seed %d is run again because the machine stalled; violations:\n  %s", seed, strings.Join(found, "\n  "))
		p = generate(seed)
	}
}

// maxRunsOfSeed limits how often a seed is run while the machine stalls.
const maxRunsOfSeed = 3

func (s *seedRunner) report(p *plan, found violations, description string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done++
	if len(found) > 0 {
		s.failed++
		s.t.Errorf("seed %d:\n  %s\n%s\nto reproduce: go test ./testsuite/randomized -run TestRandomizedRotations -seed %d",
			p.seed, strings.Join(found, "\n  "), description, p.seed)
	} else if s.verbose {
		s.t.Log(description)
	}
}

// runWithTimeout abandons a seed after seedLimit.
func (s *seedRunner) runWithTimeout(p *plan) (found violations, description string) {
	type end struct {
		found       violations
		description string
	}
	over := make(chan end, 1)
	go func() {
		found, description := s.runPlan(p)
		over <- end{found, description}
	}()
	select {
	case e := <-over:
		return e.found, e.description
	case <-time.After(seedLimit):
		return violations{fmt.Sprintf("not completed within %s", seedLimit)}, p.String()
	}
}

// runPlan runs all rotations of a seed.
func (s *seedRunner) runPlan(p *plan) (found violations, description string) {
	e, err := newEnv(p)
	if err != nil {
		return violations{err.Error()}, p.String()
	}
	defer e.close()
	if p.scenario != "" {
		e.counters.add("scenario: "+p.scenario, 1)
	}
	var rotations []*rotation
	for i := range p.rotations {
		r := e.newRotation(&p.rotations[i], nil)
		if i > 0 {
			if records := rotations[i-1].records(); records != nil {
				r.input.Completed = records.Targets
			}
		}
		rotations = append(rotations, r)
		e.counters.add("rotations", 1)
		e.counters.addInjected(p.rotations[i].faults)
		r.rotate()
		found = append(found, r.check()...)
		if len(found) > 0 {
			break
		}
	}
	if e.attemptLimitReached {
		e.counters.add("seeds in which an activity reached the attempt limit of the test environment", 1)
	}
	s.counters.addAll(e.counters)
	if len(found) > 0 || s.verbose {
		description = describe(e, rotations)
	}
	return found, description
}

// describe describes a seed: what was generated, what happened, and the
// requests to Ops Manager.
func describe(e *env, rotations []*rotation) string {
	var b strings.Builder
	b.WriteString(e.plan.String())
	for i, r := range rotations {
		fmt.Fprintf(&b, "rotation %d: %d runs, %d resets at %s; %v\n", i+1, len(r.runs), e.counters.counts["workflow resets"], r.resetAt.Format(clock), r.err)
		fmt.Fprintf(&b, "  %s\n", strings.Join(r.log, "\n  "))
		if records := r.records(); records != nil {
			for _, t := range records.Targets {
				fmt.Fprintf(&b, "  %s %s: %s -> %s, %d attempts, %s\n", t.Name, t.Status, t.PreviousKeyUUID, t.NewKeyUUID, t.Attempts, t.Remark())
			}
		}
		for _, request := range r.requests {
			if request.Kind == simulator.KindKey && (request.Authenticated || request.Fault != "") {
				fmt.Fprintf(&b, "  %4d %s-%s %s of target %d: %d %s%s %s\n", request.Seq, request.Start.Format(clock), request.End.Format(clock),
					request.Method, e.targetIndex(request.ClusterID), request.Status, request.Outcome, map[bool]string{true: ", applied"}[request.Applied], request.Fault)
			}
		}
	}
	return b.String()
}

const clock = "05.000"

func (p *plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d shards; settle %s, late %s, verify %s, request %s, retry %s, heartbeat %s\n", p.shards,
		p.timing.settle, p.timing.late, p.timing.verify, p.timing.request, p.timing.retry, p.timing.heartbeat)
	if p.scenario != "" {
		fmt.Fprintf(&b, "scenario: %s\n", p.scenario)
	}
	fmt.Fprintf(&b, "latency %s, visible after %s, %d uses of a nonce, for %s; client limits %+v\n",
		p.options.Latency, p.options.ShowAfter, p.options.NonceUses, p.options.NonceLifetime, p.limits)
	for i, r := range p.rotations {
		fmt.Fprintf(&b, "rotation %d: concurrency %d, onFailure %s, dryRun %t, requireApproval %t, expectedTargets %d, reset at the end %t, keeping %d%%\n",
			i+1, r.input.Concurrency, r.input.OnFailure, r.input.DryRun, r.input.RequireApproval, r.input.ExpectedTargets, r.resetOnce, r.kept)
		fmt.Fprintf(&b, "  %v\n", r.operator)
		for _, f := range r.faults {
			fmt.Fprintf(&b, "  %v\n", f)
		}
		for j, faults := range r.attemptFaults {
			fmt.Fprintf(&b, "  %v: %v\n", j, faults)
		}
	}
	return b.String()
}
