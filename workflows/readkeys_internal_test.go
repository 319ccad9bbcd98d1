package workflows

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// Until the approval, a target that was carried over may still lose its key: the
// next run must know who read it, so that it can recognize a foreign rotation.
func TestReadingsOfCarriedOverTargetsAreKeptWhileAwaitingApproval(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 26, 1, 0, 0, 0, time.UTC)
	done := TargetRecord{Target: Target{ClusterID: "a"}, Status: StatusVerified, CarriedOver: true}
	for phase, want := range map[Phase]keyReading{
		PhaseAwaitingApproval: {In: "run-1", At: at},
		PhaseRotating:         {},
	} {
		r := &clusterRotation{rotation: &rotation{phase: phase}, readings: map[string]*keyReading{"a": {In: "run-1", At: at}}}
		r.setTargets([]TargetRecord{done})
		assert.Equal(t, []carriedReadings{{want, 1}}, r.carriedReadings(), phase)
	}
}
