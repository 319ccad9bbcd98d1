package campaign

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"keyturn/testsuite/simulator"
)

// tally counts what happened, by name.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
}

func newTally() *tally { return &tally{counts: map[string]int{}} }

func (t *tally) add(name string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[name] += n
}

func (t *tally) addAll(other *tally) {
	other.mu.Lock()
	defer other.mu.Unlock()
	for name, n := range other.counts {
		t.add(name, n)
	}
}

func (t *tally) end(a *attempt) {
	t.add("attempts of activities", 1)
	if a.fate.end != byItself {
		t.add("fate: "+string(a.fate.end), 1)
	}
	if a.fate.reset {
		t.add("activity resets", 1)
	}
}

func (t *tally) command(name, what string) { t.add("command: "+name+" "+what, 1) }

func (t *tally) injected(faults []drawnFault) {
	for _, f := range faults {
		t.add("fault injected: "+kindOfFault(f.Name), 1)
	}
}

func (t *tally) requests(requests []simulator.Request) {
	t.add("requests", len(requests))
	for _, request := range requests {
		if request.Fault != "" {
			t.add("fault met: "+kindOfFault(request.Fault), 1)
		}
	}
}

// String lists all that was counted; what was injected and met of each fault
// stands in one line.
func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	var injected, met int
	for _, name := range slices.Sorted(maps.Keys(t.counts)) {
		kind, isFault := strings.CutPrefix(name, "fault injected: ")
		switch {
		case isFault:
			injected, met = injected+t.counts[name], met+t.counts["fault met: "+kind]
			fmt.Fprintf(&b, "%7d injected, %5d met: %s\n", t.counts[name], t.counts["fault met: "+kind], kind)
		case !strings.HasPrefix(name, "fault met: "):
			fmt.Fprintf(&b, "%7d %s\n", t.counts[name], name)
		}
	}
	fmt.Fprintf(&b, "%7d faults injected, met %d times\n", injected, met)
	return b.String()
}
