package faultinjection

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

// publicationFaults are what may happen to a publication, and to the readings around
// it. One time must be published for each process, and no other byte changed.
var publicationFaults = []struct {
	name   string
	faults func(project string) []simulator.Fault
	// ambiguous: the outcome of a PUT was unknown until the configuration was read.
	ambiguous bool
	// held is why an operator has to retry: what others have published may be lost.
	held workflows.ErrorType
	// isSample: it is tested without the flag -long, too.
	isSample bool
}{
	{name: "ResponseLostApplied", faults: applied(simulator.PublicationCut, simulator.ApplyBefore), ambiguous: true, isSample: true},
	{name: "ResponseLostNotApplied", faults: applied(simulator.PublicationCut, simulator.ApplyNo), ambiguous: true},
	{name: "NoResponseApplied", faults: applied(simulator.PublicationHang, simulator.ApplyBefore), ambiguous: true},
	{name: "NoResponseNotApplied", faults: applied(simulator.PublicationHang, simulator.ApplyNo), ambiguous: true},
	{name: "AppliedAfterRequestTimeout", faults: one(func(project string) simulator.Fault {
		return simulator.PublicationAppliedLate(project, requestTimeout+settleTime/2)
	}), ambiguous: true},
	{name: "ServerErrorApplied", faults: applied(simulator.PublicationServerError, simulator.ApplyBefore), ambiguous: true},
	{name: "ServerErrorNotApplied", faults: applied(simulator.PublicationServerError, simulator.ApplyNo), ambiguous: true, isSample: true},
	{name: "BadGatewayApplied", faults: applied(simulator.PublicationBadGateway, simulator.ApplyBefore), ambiguous: true},
	{name: "BadGatewayNotApplied", faults: applied(simulator.PublicationBadGateway, simulator.ApplyNo), ambiguous: true},
	{name: "Conflict", faults: one(func(project string) simulator.Fault { return simulator.PublicationConflict(project).Repeated(2) }), isSample: true},
	{name: "RateLimited", faults: one(func(string) simulator.Fault {
		return simulator.RateLimited(http.MethodPut, "", "1").On(simulator.KindAutomationConfig)
	})},
	{name: "StaleNonce", faults: one(func(string) simulator.Fault {
		return simulator.StaleNonce(http.MethodPut, "").On(simulator.KindAutomationConfig)
	})},
	{name: "ServerErrorsOfReadings", faults: func(string) (faults []simulator.Fault) {
		for _, kind := range []simulator.Kind{simulator.KindAutomationConfig, simulator.KindAutomationStatus, simulator.KindHosts} {
			faults = append(faults, simulator.ServerError(http.MethodGet, "", "").On(kind).Skipping(2))
		}
		return faults
	}},
	{name: "PublishedBeforeTheReading", faults: rival(simulator.RivalAtRead, simulator.RivalBefore, simulator.RivalTouches, 1)},
	{name: "PublishedBetweenTheReadings", faults: rival(simulator.RivalAtRead, simulator.RivalAfter, simulator.RivalTouches, 1)},
	{name: "EditedBetweenTheReadings", faults: rival(simulator.RivalAtRead, simulator.RivalAfter, simulator.RivalEdits, 1)},
	{name: "PublishedBeforeThePut", faults: rival(simulator.RivalAtPut, simulator.RivalBefore, simulator.RivalTouches, 0),
		held: workflows.ErrorOverwroteConcurrentChange, isSample: true},
	{name: "PublishedAfterThePut", faults: rival(simulator.RivalAtPut, simulator.RivalAfter, simulator.RivalTouches, 0),
		held: workflows.ErrorOverwroteConcurrentChange},
	{name: "RestoredAfterThePut", faults: rival(simulator.RivalAtPut, simulator.RivalAfter, simulator.RivalRestores, 0)},
	{name: "LostAndPublishedBefore", faults: func(project string) []simulator.Fault {
		lost := simulator.PublicationCut(project, simulator.ApplyBefore)
		lost.Rival = &simulator.Rival{When: simulator.RivalBefore, Change: simulator.RivalTouches}
		return []simulator.Fault{lost}
	}, ambiguous: true, held: workflows.ErrorOverwroteConcurrentChange},
}

func applied(fault func(string, simulator.Apply) simulator.Fault, apply simulator.Apply) func(string) []simulator.Fault {
	return one(func(project string) simulator.Fault { return fault(project, apply) })
}

// rival acts at the request after the given number of others.
func rival(at func(string, simulator.Rival) simulator.Fault, when simulator.RivalTime, change simulator.RivalChange, after int) func(string) []simulator.Fault {
	return one(func(project string) simulator.Fault {
		return at(project, simulator.Rival{When: when, Change: change}).Skipping(after)
	})
}

var auditAndBooks = simulator.DeploymentOptions{Clusters: []simulator.DeployedCluster{{Name: "audit", Members: 2}, {Name: "books", Members: 1}}}

// newAgentsRotation takes the agents' word for the keys of two replica sets, and is held
// where an operator is needed.
func newAgentsRotation(s fixture.Server) deploymentRotation {
	s.Helper()
	r := newUnsnapshottedRotation(s, auditAndBooks)
	r.input.Proof, r.input.OnFailure = workflows.ProofAgent, workflows.OnFailureHold
	r.input.DeployTimeout = workflows.Duration(20 * time.Second)
	return r
}

func (r deploymentRotation) retryHeld(run workflowRun, reason workflows.ErrorType) {
	r.Helper()
	held := r.AwaitDeployment(run.GetID(), fixture.DeploymentInPhase(workflows.PhaseHeld))
	require.Equal(r, reason, held.Targets[0].Error.Type)
	_, err := r.UpdateDeployment(run.GetID(), workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	require.NoError(r, err)
}

func TestRequestFaultOfADeployment(t *testing.T) {
	t.Parallel()
	for _, c := range publicationFaults {
		if !c.isSample && !*long {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := fixture.NewServer(t, simulator.Options{})
			s.Unrecorded = true
			r := newAgentsRotation(s)
			for _, f := range c.faults(s.Project) {
				s.OM.Inject(f)
			}
			s.StartWorkerWith(s.Temporal, clientOf(t, s.OM.URL))
			run := r.start()
			if c.held != "" {
				r.retryHeld(run, c.held)
			}
			assert.Equal(t, c.ambiguous, r.requireRotated(run).isAmbiguous)
			assert.Zero(t, s.OM.FaultsLeft(), "every fault must be applied")
		})
	}
}

// Someone publishes without the time before a process has reached it, and agents hear
// of no publication for a while: the same time is published again, or waited for.
func TestDroppedAndFrozenTimes(t *testing.T) {
	t.Parallel()
	t.Run("Dropped", func(t *testing.T) {
		t.Parallel()
		s := fixture.NewServer(t, simulator.Options{})
		s.Unrecorded = true
		r := newAgentsRotation(s)
		r.SetAgent("audit-0", simulator.Agent{Waits: time.Hour}) // the primary
		startWorker(s)
		run := r.start()
		s.AwaitLedger(func(l simulator.Ledger) bool { return len(l.MemberRotationsOf(s.Project, "audit-1")) == 1 })
		r.Publish("dana", simulator.DropRotationTimes("audit-0"))
		s.AwaitLedger(func(l simulator.Ledger) bool { return len(l.Puts(s.Project)) == 2 })
		r.SetAgent("audit-0", simulator.Agent{})
		r.requireRotated(run)
	})
	if !*long {
		return
	}
	t.Run("Frozen", func(t *testing.T) {
		t.Parallel()
		s := fixture.NewServer(t, simulator.Options{})
		s.Unrecorded = true
		r := newAgentsRotation(s)
		r.input.DeployTimeout = workflows.Duration(5 * time.Second)
		r.SetConduct(simulator.Conduct{VersionStep: 1, GoalFrozen: true})
		startWorker(s)
		run := r.start()
		held := s.AwaitDeployment(run.GetID(), fixture.DeploymentInPhase(workflows.PhaseHeld))
		require.Equal(t, workflows.ErrorDeploymentFailed, held.Targets[0].Error.Type)
		assert.Empty(t, r.Rotations(""))
		r.SetConduct(simulator.Conduct{VersionStep: 1})
		r.retryHeld(run, workflows.ErrorDeploymentFailed)
		r.requireRotated(run)
	})
}

// Each activity of a deployment's rotation that lasts is reset or paused meanwhile.
func TestActivityResetOfADeployment(t *testing.T) {
	t.Parallel()
	samples := map[string]string{
		activities.PublishRotationName: "ResetWithHeartbeats",
		activities.AwaitRotationName:   "PauseResetAndUnpause",
		activities.ProveRotationName:   "PauseAndUnpauseFromScratch",
	}
	for activity, sample := range samples {
		for name, commands := range activityCommands {
			if name != sample && !*long {
				continue
			}
			t.Run(activity+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := fixture.NewServer(t, simulator.Options{})
				s.Unrecorded = true
				r := newAgentsRotation(s)
				goOn := func() {}
				switch activity {
				case activities.PublishRotationName:
					r.input.SettleTime = workflows.Duration(4 * time.Second)
					s.OM.Inject(simulator.PublicationServerError(s.Project, simulator.ApplyNo))
				case activities.AwaitRotationName:
					r.SetAgent("audit-1", simulator.Agent{Waits: time.Hour})
					goOn = func() { r.SetAgent("audit-1", simulator.Agent{}) }
				case activities.ProveRotationName:
					r.input.Proof, r.input.ProofTimeout = workflows.ProofSnapshot, workflows.Duration(time.Minute)
					goOn = func() {
						for i, process := range []string{"audit-1", "books-0"} {
							r.TakeMemberSnapshot(r.ClusterIDs[i], simulator.MemberSnapshot{From: []string{process}})
						}
					}
				}
				s.StartWorkerWith(s.Temporal, clientOf(t, s.OM.URL), fewPollers)
				run := r.start()
				s.AwaitLedger(func(l simulator.Ledger) bool { return len(l.Puts(s.Project)) > 0 })
				if activity == activities.ProveRotationName {
					s.AwaitDeployment(run.GetID(), func(p workflows.DeploymentProgress) bool { return p.Counts[workflows.StatusRotated] == 3 })
				}
				sendActivityCommandsTo(s, run, activity, commands)
				goOn()
				r.requireRotated(run)
			})
		}
	}
}

// Every reset of a completed rotation ends with the same records and publishes nothing.
func TestFinishedRotationOfADeploymentResetToEveryPoint(t *testing.T) {
	t.Parallel()
	s := fixture.NewServer(t, simulator.Options{})
	s.Unrecorded = true
	r := newDeploymentRotation(s, auditAndBooks)
	r.input.DeployTimeout = workflows.Duration(20 * time.Second)
	startWorker(s)
	run := r.start()
	before := r.requireRotated(run).records
	puts := len(r.Puts())
	points := resetPoints(s.History(run), deploymentKind.readings)
	require.Greater(t, len(points), 4)
	for i, id := range points {
		if i%4 != 0 && !*long {
			continue
		}
		again := r.requireRotated(reset(s, run, toEvent(id)...)).records
		assert.Equal(t, before, again, "reset to event %d", id)
		assert.Len(t, r.Puts(), puts, "reset to event %d", id)
	}
}
