package randomized

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"keyturn/testsuite/simulator"
)

// counters counts what happened, by name.
type counters struct {
	mu     sync.Mutex
	counts map[string]int
}

func newCounters() *counters { return &counters{counts: map[string]int{}} }

func (c *counters) add(name string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[name] += n
}

func (c *counters) addAll(other *counters) {
	other.mu.Lock()
	defer other.mu.Unlock()
	for name, n := range other.counts {
		c.add(name, n)
	}
}

func (c *counters) addAttempt(a *attempt) {
	c.add("activity attempts", 1)
	if a.fault.end != completes {
		c.add("attempt fault: "+string(a.fault.end), 1)
	}
	if a.fault.reset {
		c.add("activity resets", 1)
	}
}

func (c *counters) addUpdate(name, outcome string) { c.add("update: "+name+" "+outcome, 1) }

func (c *counters) addInjected(faults []plannedFault) {
	for _, f := range faults {
		c.add("fault injected: "+faultKind(f.Name), 1)
	}
}

func (c *counters) addRequests(requests []simulator.Request) {
	c.add("requests", len(requests))
	for _, request := range requests {
		if request.Fault != "" {
			c.add("fault applied: "+faultKind(request.Fault), 1)
		}
	}
}

// String lists all counters. The numbers of injected and applied faults of one
// kind share a line.
func (c *counters) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	var injected, applied int
	for _, name := range slices.Sorted(maps.Keys(c.counts)) {
		kind, isFault := strings.CutPrefix(name, "fault injected: ")
		switch {
		case isFault:
			injected, applied = injected+c.counts[name], applied+c.counts["fault applied: "+kind]
			fmt.Fprintf(&b, "%7d injected, %5d applied: %s\n", c.counts[name], c.counts["fault applied: "+kind], kind)
		case !strings.HasPrefix(name, "fault applied: "):
			fmt.Fprintf(&b, "%7d %s\n", c.counts[name], name)
		}
	}
	fmt.Fprintf(&b, "%7d faults injected, applied %d times\n", injected, applied)
	return b.String()
}
