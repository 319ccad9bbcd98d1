package randomized

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdktestsuite "go.temporal.io/sdk/testsuite"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/workflows"
)

// seedsOfDeployments is how many times fewer seeds rotate deployments: each of them
// rotates several replica sets, one after another.
const seedsOfDeployments = 10

// TestRandomizedDeployments generates a deployment, the input of its rotation, faults of
// Ops Manager, other publishers, failing agents, early continue-as-new and what operators
// do. Whatever happens, a process gets one time and one key.
func TestRandomizedDeployments(t *testing.T) {
	first, n := *from, max(*seeds/seedsOfDeployments, 1)
	if *oneSeed != 0 {
		first, n = *oneSeed, 1
	}
	var ended [2]atomic.Int64
	t.Run("seeds", func(t *testing.T) {
		for i := range uint64(n) {
			t.Run(fmt.Sprint(first+i), func(t *testing.T) {
				t.Parallel()
				ok := runDeployment(t, first+i)
				if t.Failed() {
					t.Logf("to reproduce: go test ./testsuite/randomized -run TestRandomizedDeployments -seed %d", first+i)
				}
				if ok {
					ended[0].Add(1)
				} else {
					ended[1].Add(1)
				}
			})
		}
	})
	t.Logf("%d rotations of deployments succeeded, %d failed", ended[0].Load(), ended[1].Load())
	if n >= 20 {
		require.Positive(t, ended[0].Load(), "rotations that succeed")
		require.Positive(t, ended[1].Load(), "rotations that fail")
	}
}

// deploymentPlan is what one seed generates.
type deploymentPlan struct {
	rng
	options simulator.DeploymentOptions
	conduct simulator.Conduct
	input   workflows.RotateDeploymentInput
	faults  []simulator.Fault
	agents  map[string]simulator.Agent
	// continueAfter are the times after which runs are to continue as new.
	continueAfter []time.Duration
	pauseAfter    time.Duration
	decisions     int // of operators before they abort
}

func generateDeployment(seed uint64) *deploymentPlan {
	p := &deploymentPlan{rng: newRNG(seed), agents: map[string]simulator.Agent{}}
	for i := range p.between(1, 3) {
		p.options.Clusters = append(p.options.Clusters, simulator.DeployedCluster{
			Name: string(rune('a' + i)), Shards: pick(p.rng, 0, 0, 1, 2), Members: p.between(1, 3),
		})
	}
	p.options.MemberTime = p.milliseconds(1, 15)
	p.options.WithoutNoSecrets, p.options.WholeSeconds = p.chance(20), false
	if p.chance(70) {
		p.options.SnapshotEvery = time.Minute
	}
	p.conduct = simulator.Conduct{VersionStep: 1, RefuseStale: p.chance(30)}
	if p.chance(10) {
		p.conduct.VersionStep = 2
	}
	if p.chance(30) {
		p.conduct.Modifies = []simulator.Modification{pick(p.rng, simulator.ModifyAddsFields, simulator.ModifyReformatsTime, simulator.ModifyNumbersTime)}
	}
	p.input = fixture.DeploymentInput()
	p.input.Concurrency = p.between(1, 4)
	p.input.Proof = pick(p.rng, workflows.ProofAgent, workflows.ProofSnapshot)
	p.input.ProofTimeout = workflows.Duration(10 * time.Minute)
	p.input.OnFailure = pick(p.rng, workflows.OnFailureHold, workflows.OnFailureHold, workflows.OnFailureContinue, workflows.OnFailureStop)
	p.input.HoldTimeout = workflows.Duration(time.Hour)
	p.input.RequireApproval = p.chance(20)
	p.input.RetryTimeout = workflows.Duration(pick(p.rng, 300*time.Millisecond, 5*time.Second) * timeScale)
	p.input.DeployTimeout = workflows.Duration(5 * time.Second * timeScale)
	for range pick(p.rng, 0, 1, 1, 2, 4) {
		p.faults = append(p.faults, p.fault())
	}
	if p.chance(20) {
		p.continueAfter = append(p.continueAfter, p.milliseconds(1, 2000), p.milliseconds(1, 4000))
	}
	if p.chance(20) {
		p.pauseAfter = p.milliseconds(1, 4000)
	}
	p.decisions = p.between(1, 6)
	return p
}

func (p *deploymentPlan) fault() simulator.Fault {
	change := pick(p.rng, simulator.RivalTouches, simulator.RivalDropsTimes, simulator.RivalRestores, simulator.RivalRepublishes)
	rival := simulator.Rival{When: pick(p.rng, simulator.RivalBefore, simulator.RivalAfter), Change: change, By: "dana"}
	apply := pick(p.rng, simulator.ApplyNo, simulator.ApplyBefore)
	fault := pick(p.rng,
		simulator.RivalAtRead(fixture.Project, rival), simulator.RivalAtPut(fixture.Project, rival),
		simulator.PublicationConflict(fixture.Project), simulator.PublicationServerError(fixture.Project, apply),
		simulator.PublicationBadGateway(fixture.Project, apply), simulator.PublicationCut(fixture.Project, apply),
		simulator.PublicationPage(fixture.Project, apply), simulator.PublicationUnchanging(fixture.Project),
	)
	return fault.Skipping(p.between(0, 4)).Repeated(pick(p.rng, 1, 1, 2, 5))
}

// runDeployment runs a seed, and reports whether the rotation succeeded.
func runDeployment(t *testing.T, seed uint64) (succeeded bool) {
	p := generateDeployment(seed)
	d := fixture.Deploy(t, p.options)
	d.SetConduct(p.conduct)
	for _, process := range d.Processes() {
		if p.chance(5) {
			d.SetAgent(process.Name, pick(p.rng, simulator.Agent{ErrorCode: 7, ErrorText: "stuck"}, simulator.Agent{KeepsKey: true}, simulator.Agent{Takes: 50 * time.Millisecond}))
		}
	}
	for _, fault := range p.faults {
		d.OM.Inject(fault)
	}
	arguments := []any{p.input}
	var result workflows.RotateDeploymentResult
	var err error
	for run := 0; ; run++ {
		env := fixture.NewDeployment(t, d)
		if run > 0 {
			env.SetContinuedExecutionRunID("default-test-run-id")
		}
		p.operate(env, d, run)
		result, err = env.Start(workflows.RotateDeploymentID(workflows.DefaultConnection, fixture.Project), arguments...)
		next, continues := continuation(err)
		if !continues {
			break
		}
		require.Less(t, run, 10, "runs")
		arguments = next
	}
	records := &result
	if err != nil {
		if failed, found := workflows.RotateDeploymentResultOf(err); found {
			records = failed
		} else {
			records = &workflows.RotateDeploymentResult{Outcome: workflows.OutcomeNothingRotated}
		}
	}
	for _, violation := range violationsOf(d, records, err) {
		t.Error(violation)
	}
	if t.Failed() {
		t.Logf("options %+v\nconduct %+v\ninput %+v\nfaults %+v\nerror %v\nactions %+v\npublications %+v", p.options, p.conduct, p.input, p.faults, err, records.Actions, d.Puts())
		for _, record := range records.Targets {
			t.Logf("%s %s %v %s", record.Process, record.Status, record.RotateAt, record.Remark())
		}
	}
	return err == nil
}

// operate has operators look at a run from time to time.
func (p *deploymentPlan) operate(env fixture.Deployment, d fixture.Deployed, run int) {
	if run < len(p.continueAfter) {
		env.RegisterDelayedCallback(func() { env.SetContinueAsNewSuggested(true) }, p.continueAfter[run])
	}
	if p.pauseAfter > 0 && run == 0 {
		env.RegisterDelayedCallback(func() { send(env, workflows.PauseUpdate, workflows.OperatorRequest{By: "lee"}) }, p.pauseAfter)
	}
	var look func()
	pause := 20 * time.Millisecond
	look = func() {
		if pause = min(pause*5/4, time.Minute); env.IsWorkflowCompleted() {
			return
		}
		env.RegisterDelayedCallback(look, pause)
		value, err := env.QueryWorkflow(workflows.ProgressQuery)
		var progress workflows.DeploymentProgress
		if err != nil || value.Get(&progress) != nil {
			return
		}
		switch progress.Phase {
		case workflows.PhaseAwaitingApproval:
			send(env, workflows.ApproveUpdate, workflows.ApproveRequest{By: "lee"})
		case workflows.PhasePaused:
			send(env, workflows.ResumeUpdate, workflows.OperatorRequest{By: "lee"})
		case workflows.PhaseHeld:
			p.decide(env, d, progress)
		}
	}
	env.RegisterDelayedCallback(look, pause)
}

func (p *deploymentPlan) decide(env fixture.Deployment, d fixture.Deployed, progress workflows.DeploymentProgress) {
	for _, process := range d.Processes() {
		d.SetAgent(process.Name, simulator.Agent{})
	}
	var failed []string
	for _, record := range progress.Targets {
		if record.Status == workflows.StatusFailed {
			failed = append(failed, record.Process)
		}
	}
	p.decisions--
	switch choice := p.IntN(10); {
	case p.decisions <= 0:
		send(env, workflows.AbortUpdate, workflows.OperatorRequest{By: "lee"})
	case choice < 7 || len(failed) == 0:
		send(env, workflows.RetryUpdate, workflows.RetryRequest{By: "lee"})
	case choice < 8:
		send(env, workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: failed[:1]})
	default:
		send(env, workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: failed})
	}
}

// send sends an update, which may be refused: the rotation may have gone on.
func send(env fixture.Deployment, name string, request any) {
	env.UpdateWorkflow(name, "", &sdktestsuite.TestUpdateCallback{
		OnReject: func(error) {}, OnAccept: func() {}, OnComplete: func(any, error) {},
	}, request)
}

// violationsOf compares what a rotation says with the ledger.
func violationsOf(d fixture.Deployed, records *workflows.RotateDeploymentResult, err error) (found []string) {
	violation := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	found = append(found, d.Violations()...)
	times, sent := map[string][]string{}, 0
	for _, put := range d.Puts() {
		sent++
		for _, change := range put.Rotations {
			if !slices.Contains(times[change.Process], change.After) {
				times[change.Process] = append(times[change.Process], change.After)
			}
		}
	}
	for _, process := range d.Processes() {
		if all := times[process.Name]; len(all) > 1 {
			violation("%s was given %d times: %v", process.Name, len(all), all)
		}
		if rotations := d.Rotations(process.Name); len(rotations) > 1 {
			violation("%s got %d keys", process.Name, len(rotations))
		}
	}
	for _, record := range records.Targets {
		found = append(found, violationsOfRecord(d, record, times[record.Process])...)
	}
	if known := workflows.ErrorTypeOf(err); err != nil && !slices.Contains(workflows.ErrorTypes, known) {
		violation("error of type %q: %v", known, err)
	}
	switch {
	case err == nil:
		for _, record := range records.Targets {
			if !slices.Contains([]workflows.Status{workflows.StatusRotated, workflows.StatusVerified, workflows.StatusSkipped}, record.Status) {
				violation("%s is %s in a rotation that succeeded", record.Process, record.Status)
			}
		}
	case records.Outcome == workflows.OutcomeNothingRotated && sent > 0:
		violation("nothing was rotated, and %d PUTs were sent", sent)
	case records.Outcome == workflows.OutcomePartial && sent == 0:
		violation("the rotation is partial, and no PUT was sent")
	}
	return found
}

func violationsOfRecord(d fixture.Deployed, record workflows.ProcessRecord, times []string) (found []string) {
	violation := func(format string, args ...any) {
		found = append(found, record.Process+": "+fmt.Sprintf(format, args...))
	}
	at := ""
	if record.RotateAt != nil {
		at = `"` + opsmanager.RotationTime(*record.RotateAt) + `"`
	}
	if len(times) > 0 && times[0] != at {
		violation("%s was published, and the record says %q", times[0], at)
	}
	rotations := d.Rotations(record.Process)
	isDone := record.Status == workflows.StatusRotated || record.Status == workflows.StatusVerified
	switch {
	case isDone && record.RotatedAt == nil:
		violation("%s without a time", record.Status)
	case isDone && len(rotations) == 0 && !strings.Contains(record.Remark(), "KeyUnchanged"):
		if d.Process(record.Process).LastRestart.Before(*record.RotateAt) {
			violation("%s, and it was never restarted", record.Status)
		}
	case record.Status == workflows.StatusVerified && record.NewKeyUUID != d.Process(record.Process).Key:
		violation("verified with key %s, and it has %s", record.NewKeyUUID, d.Process(record.Process).Key)
	case record.Status == workflows.StatusFailed && (record.Error == nil || !slices.Contains(workflows.ErrorTypes, record.Error.Type)):
		violation("failed with %v", record.Error)
	}
	return found
}
