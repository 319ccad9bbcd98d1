package campaign

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
	seeds   = flag.Int("seeds", seedsByDefault, "how many seeds are run")
	from    = flag.Uint64("from", 1, "the first seed")
	oneSeed = flag.Uint64("seed", 0, "run this seed alone")
	atATime = flag.Int("at-a-time", 16, "how many seeds are under way at a time; most of their time is waiting")
)

// seedLimit is how long one seed may take. The longest take some seconds.
const seedLimit = 90 * time.Second * slowness

// maxFailures ends a campaign in which everything fails.
const maxFailures = 25

func TestCampaign(t *testing.T) {
	first, n := *from, *seeds
	if *oneSeed != 0 {
		first, n = *oneSeed, 1
	}
	c := campaign{t: t, tally: newTally(), verbose: *oneSeed != 0, stalls: watchForStalls()}
	defer c.stalls.stop()
	c.run(first, n)
	t.Logf("%d seeds from %d in %s, of which %d failed:\n%s", c.done, first, time.Since(c.started).Round(time.Second), c.failed, c.tally)
}

// campaign runs seeds and sums up.
type campaign struct {
	t       *testing.T
	tally   *tally
	started time.Time
	verbose bool
	stalls  *stalls

	mu           sync.Mutex
	done, failed int
}

func (c *campaign) run(first uint64, n int) {
	c.started = time.Now()
	c.tally.add("PUTs applied twice", 0)
	next := make(chan uint64)
	var players sync.WaitGroup
	for range min(*atATime, n) {
		players.Go(func() {
			for seed := range next {
				c.runSeed(seed)
			}
		})
	}
	for i := range uint64(n) {
		if c.hasFailed() {
			break
		}
		next <- first + i
	}
	close(next)
	players.Wait()
}

func (c *campaign) hasFailed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed >= maxFailures
}

// runSeed runs a seed. What it finds while the machine stalls counts only if it
// is found again.
func (c *campaign) runSeed(seed uint64) {
	p := draw(seed)
	for run := 1; ; run++ {
		started := time.Now()
		found, story := c.playInTime(p)
		if len(found) == 0 || run == maxRunsOfSeed || !c.stalls.since(started) {
			c.report(p, found, story)
			return
		}
		c.tally.add("runs of a seed with findings while the machine stalled, and run again", 1)
		c.t.Logf("seed %d, while the machine stalled, and so run again:\n  %s", seed, strings.Join(found, "\n  "))
		p = draw(seed)
	}
}

// maxRunsOfSeed is how often the same may be found while the machine stalls.
const maxRunsOfSeed = 3

func (c *campaign) report(p *plan, found findings, story string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done++
	if len(found) > 0 {
		c.failed++
		c.t.Errorf("seed %d:\n  %s\n%s\nrun it again: go test ./testsuite/campaign -run TestCampaign -seed %d",
			p.seed, strings.Join(found, "\n  "), story, p.seed)
	} else if c.verbose {
		c.t.Log(story)
	}
}

// playInTime gives a seed up, and leaves it to itself, when its time is over.
func (c *campaign) playInTime(p *plan) (found findings, story string) {
	type end struct {
		found findings
		story string
	}
	over := make(chan end, 1)
	go func() {
		found, story := c.play(p)
		over <- end{found, story}
	}()
	select {
	case e := <-over:
		return e.found, e.story
	case <-time.After(seedLimit):
		return findings{fmt.Sprintf("it has not ended within %s", seedLimit)}, p.String()
	}
}

// play runs all rotations of a seed.
func (c *campaign) play(p *plan) (found findings, story string) {
	w, err := build(p)
	if err != nil {
		return findings{err.Error()}, p.String()
	}
	defer w.close()
	if p.ambush != "" {
		w.tally.add("ambush: "+p.ambush, 1)
	}
	var rotations []*rotation
	for i := range p.rotations {
		r := w.newRotation(&p.rotations[i], nil)
		if i > 0 {
			if records := rotations[i-1].records(); records != nil {
				r.input.Completed = records.Targets
			}
		}
		rotations = append(rotations, r)
		w.tally.add("rotations", 1)
		w.tally.injected(p.rotations[i].faults)
		r.rotate()
		found = append(found, r.check()...)
		if len(found) > 0 {
			break
		}
	}
	if w.tired {
		w.tally.add("seeds in which the test environment gave an activity up", 1)
	}
	c.tally.addAll(w.tally)
	if len(found) > 0 || c.verbose {
		story = tell(w, rotations)
	}
	return found, story
}

// tell is the story of a seed: what was drawn, and what Ops Manager was asked.
func tell(w *world, rotations []*rotation) string {
	var b strings.Builder
	b.WriteString(w.plan.String())
	for i, r := range rotations {
		fmt.Fprintf(&b, "rotation %d: %d runs, %d resets at %s; %v\n", i+1, len(r.runs), w.tally.counts["workflow resets"], r.resetAt.Format(clock), r.err)
		fmt.Fprintf(&b, "  %s\n", strings.Join(r.deeds, "\n  "))
		if records := r.records(); records != nil {
			for _, t := range records.Targets {
				fmt.Fprintf(&b, "  %s %s: %s -> %s, %d attempts, %s\n", t.Name, t.Status, t.PreviousKeyUUID, t.NewKeyUUID, t.Attempts, t.Remark())
			}
		}
		for _, request := range r.requests {
			if request.Kind == simulator.KindKey && (request.Authenticated || request.Fault != "") {
				fmt.Fprintf(&b, "  %4d %s-%s %s of target %d: %d %s%s %s\n", request.Seq, request.Start.Format(clock), request.End.Format(clock),
					request.Method, w.placeOf(request.ClusterID), request.Status, request.Outcome, map[bool]string{true: ", applied"}[request.Applied], request.Fault)
			}
		}
	}
	return b.String()
}

const clock = "05.000"

func (p *plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d shards; settle %s, late %s, verify %s, request %s, retry %s, heartbeat %s\n", p.shards,
		p.pace.settle, p.pace.late, p.pace.verify, p.pace.request, p.pace.retry, p.pace.heartbeat)
	if p.ambush != "" {
		fmt.Fprintf(&b, "ambush: %s\n", p.ambush)
	}
	fmt.Fprintf(&b, "latency %s, shown after %s, %d uses of a nonce, for %s; client's limits %+v\n",
		p.options.Latency, p.options.ShowAfter, p.options.NonceUses, p.options.NonceLifetime, p.limits)
	for i, r := range p.rotations {
		fmt.Fprintf(&b, "rotation %d: concurrency %d, onFailure %s, dryRun %t, requireApproval %t, expectedTargets %d, reset at the end %t, keeping %d%%\n",
			i+1, r.input.Concurrency, r.input.OnFailure, r.input.DryRun, r.input.RequireApproval, r.input.ExpectedTargets, r.resetOnce, r.kept)
		fmt.Fprintf(&b, "  %v\n", r.operator)
		for _, f := range r.faults {
			fmt.Fprintf(&b, "  %v\n", f)
		}
		for j, fates := range r.fates {
			fmt.Fprintf(&b, "  %v: %v\n", j, fates)
		}
	}
	return b.String()
}
