package simulator_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/kmipevidence"
	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/kmipkeys"
	"keyturn/testsuite/support/kmipsimulator"
)

// times are the times in the configuration that the client reads now.
func (d deployed) times() map[string]string {
	d.t.Helper()
	topology, err := d.read().Topology()
	require.NoError(d.t, err)
	times := map[string]string{}
	for _, p := range topology.Processes {
		times[p.Name] = p.LastRotation
	}
	return times
}

// hasTime reports whether the configuration has a time for a process, in whatever
// form.
func (d deployed) hasTime(process string, at time.Time) bool {
	d.t.Helper()
	found, ok := opsmanager.ParseRotationTime(d.times()[process])
	return ok && found.Equal(at.Truncate(time.Second))
}

func TestRivals(t *testing.T) {
	at := time.Now().Truncate(time.Second)
	const process = "audit-0"
	read := func(r simulator.Rival) simulator.Fault { return simulator.RivalAtRead(project, r) }
	put := func(r simulator.Rival) simulator.Fault { return simulator.RivalAtPut(project, r) }
	for name, c := range map[string]struct {
		at        func(simulator.Rival) simulator.Fault
		rival     simulator.Rival
		overwrote bool  // the PUT undid what the rival did
		versions  int64 // how many versions later the project is
		kept      bool  // the time that was put is there
	}{
		"before the reading":     {read, simulator.Rival{When: simulator.RivalBefore, Change: simulator.RivalTouches}, false, 2, true},
		"after the reading":      {read, simulator.Rival{When: simulator.RivalAfter, Change: simulator.RivalTouches}, true, 2, true},
		"before the PUT":         {put, simulator.Rival{When: simulator.RivalBefore, Change: simulator.RivalTouches}, true, 2, true},
		"after the PUT":          {put, simulator.Rival{When: simulator.RivalAfter, Change: simulator.RivalTouches}, false, 2, true},
		"the same text":          {put, simulator.Rival{When: simulator.RivalAfter, Change: simulator.RivalRepublishes}, false, 2, true},
		"drops the time":         {put, simulator.Rival{When: simulator.RivalAfter, Change: simulator.RivalDropsTimes}, false, 2, false},
		"had read what was":      {put, simulator.Rival{When: simulator.RivalAfter, Change: simulator.RivalRestores}, false, 2, false},
		"rotates the same":       {put, simulator.Rival{When: simulator.RivalAfter, Change: simulator.RivalSetsTimes, Time: at.Add(time.Hour)}, false, 2, false},
		"rotates another before": {read, simulator.Rival{When: simulator.RivalAfter, Change: simulator.RivalSetsTimes, Time: at.Add(time.Hour), Processes: []string{"audit-1"}}, true, 2, true},
		"without a publication":  {read, simulator.Rival{When: simulator.RivalAfter, Change: simulator.RivalEdits}, true, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := deploy(t, simulator.DeploymentOptions{MemberTime: time.Hour})
			before := d.Version()
			c.rival.By = "dana"
			d.om.Inject(c.at(c.rival))
			require.NoError(t, d.rotate(at, process))
			assert.Zero(t, d.om.FaultsLeft())
			assert.Equal(t, c.versions, d.read().Version()-before)
			assert.Equal(t, c.kept, d.hasTime(process, at))
			require.Len(t, d.Puts(), 1)
			assert.Empty(t, d.Puts()[0].Changes)
			assert.Equal(t, c.overwrote, len(d.Puts()[0].Overwrote) > 0)
			events, err := d.client.Events(t.Context(), project, opsmanager.EventAutomationConfigPublished, at)
			require.NoError(t, err)
			var actors []string
			for _, e := range events {
				actors = append(actors, e.Actor())
			}
			assert.Contains(t, actors, simulator.DefaultPublicKey)
			assert.Equal(t, c.versions == 2, slices.Contains(actors, "dana"))
		})
	}
}

func TestRefusedPublications(t *testing.T) {
	for name, c := range map[string]struct {
		arrange func(deployed)
		is      func(*opsmanager.Error) bool
		code    string
	}{
		"conflict": {func(d deployed) { d.om.Inject(simulator.PublicationConflict(project)) },
			(*opsmanager.Error).IsConcurrentModification, ""},
		"stale": {func(d deployed) {
			d.SetConduct(simulator.Conduct{RefuseStale: true})
			d.om.Inject(simulator.RivalAtRead(project, simulator.Rival{When: simulator.RivalAfter, Change: simulator.RivalTouches}))
		}, (*opsmanager.Error).IsConcurrentModification, "AUTOMATION_CONFIG_CONCURRENT_MODIFICATION"},
		"401": {func(d deployed) { d.ExternallyManaged("operator", 401) }, (*opsmanager.Error).IsExternallyManaged, "EXTERNALLY_MANAGED_LOCK"},
		"403": {func(d deployed) { d.ExternallyManaged("operator", 403) }, (*opsmanager.Error).IsExternallyManaged, "CHANGE_NOT_ALLOWED_EXTERNAL_SYSTEM"},
		"locked meanwhile": {func(d deployed) {
			d.om.Inject(simulator.RivalAtRead(project, simulator.Rival{When: simulator.RivalAfter, Change: simulator.RivalLocks}))
		}, (*opsmanager.Error).IsExternallyManaged, "CHANGE_NOT_ALLOWED_EXTERNAL_SYSTEM"},
	} {
		t.Run(name, func(t *testing.T) {
			d := deploy(t, simulator.DeploymentOptions{})
			c.arrange(d)
			var refused *opsmanager.Error
			require.ErrorAs(t, d.rotate(time.Now(), "audit-0"), &refused)
			assert.True(t, c.is(refused), refused.Error())
			assert.False(t, refused.OutcomeUnknown)
			require.Len(t, d.Puts(), 1)
			assert.False(t, d.Puts()[0].Applied)
			assert.Equal(t, c.code, d.Puts()[0].Refused)
			assert.Equal(t, d.Puts()[0].VersionBefore, d.Puts()[0].VersionAfter)
			assert.Len(t, d.Puts()[0].Rotations, 1, "what it would have changed")
			assert.Empty(t, d.Rotations(""))
		})
	}
	d := deploy(t, simulator.DeploymentOptions{})
	d.ExternallyManaged("operator", 0, "EXTERNALLY_MANAGED_LOCK", "DISABLE_SET_MONGOD_VERSION")
	feature, err := d.client.ControlledFeature(t.Context(), project)
	require.NoError(t, err)
	assert.Equal(t, opsmanager.ControlledFeature{System: "operator", Policies: []string{"EXTERNALLY_MANAGED_LOCK", "DISABLE_SET_MONGOD_VERSION"}}, feature)
	d.ExternallyManaged("", 403)
	feature, err = d.client.ControlledFeature(t.Context(), project)
	require.NoError(t, err)
	assert.Empty(t, feature)
	require.NoError(t, d.rotate(time.Now(), "audit-0"))
}

func TestLostAnswersOfPublications(t *testing.T) {
	for name, c := range map[string]struct {
		fault   simulator.Fault
		applied bool
		fine    bool // the client sees no error
	}{
		"500 before":   {simulator.PublicationServerError(project, simulator.ApplyNo), false, false},
		"500 after":    {simulator.PublicationServerError(project, simulator.ApplyBefore), true, false},
		"502 after":    {simulator.PublicationBadGateway(project, simulator.ApplyBefore), true, false},
		"cut before":   {simulator.PublicationCut(project, simulator.ApplyNo), false, false},
		"cut after":    {simulator.PublicationCut(project, simulator.ApplyBefore), true, false},
		"hang after":   {simulator.PublicationHang(project, simulator.ApplyBefore), true, false},
		"late":         {simulator.PublicationAppliedLate(project, time.Millisecond), true, false},
		"page":         {simulator.PublicationPage(project, simulator.ApplyNo), false, false},
		"unchanging":   {simulator.PublicationUnchanging(project), false, true},
		"cut and lost": {withRival(simulator.PublicationCut(project, simulator.ApplyBefore), simulator.RivalRestores), true, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := deploy(t, simulator.DeploymentOptions{})
			d.om.Inject(c.fault)
			at := time.Now()
			changed, err := d.read().WithRotationTime([]string{"audit-0"}, at)
			require.NoError(t, err)
			err = productClient(t, d.om, time.Second).PutAutomationConfig(t.Context(), project, changed, nil)
			if c.fine {
				require.NoError(t, err)
			} else {
				var unknown *opsmanager.Error
				require.ErrorAs(t, err, &unknown)
				assert.True(t, unknown.OutcomeUnknown)
			}
			await(t, d.om, func(l simulator.Ledger) bool { return len(l.Puts(project)) == 1 })
			put := d.Puts()[0]
			assert.Equal(t, c.applied, put.Applied)
			assert.Equal(t, c.applied, put.VersionAfter > put.VersionBefore)
			assert.Equal(t, c.applied && name != "cut and lost", d.hasTime("audit-0", at))
		})
	}
}

func withRival(f simulator.Fault, change simulator.RivalChange) simulator.Fault {
	f.Rival = &simulator.Rival{When: simulator.RivalAfter, Change: change}
	return f
}

// A PUT that a frozen server took is applied after everything that came later.
func TestAFrozenPublicationOverwritesWhatCameLater(t *testing.T) {
	d := deploy(t, simulator.DeploymentOptions{MemberTime: time.Hour})
	d.om.Inject(simulator.PublicationFrozen(project, time.Millisecond))
	changed, err := d.read().WithRotationTime([]string{"audit-0"}, time.Now())
	require.NoError(t, err)
	require.Error(t, productClient(t, d.om, time.Second).PutAutomationConfig(t.Context(), project, changed, nil))
	require.NoError(t, d.rotate(time.Now(), "audit-1"))
	d.om.ClearFaults()
	await(t, d.om, func(l simulator.Ledger) bool { return len(l.Puts(project)) == 2 })
	put := d.Puts()[1]
	assert.Empty(t, put.Changes)
	require.NotEmpty(t, put.Overwrote)
	assert.Contains(t, put.Overwrote[len(put.Overwrote)-1].Path, "/processes/audit-1/")
}

func TestOpsManagersOwnModifications(t *testing.T) {
	at := time.Now().Truncate(time.Second)
	for _, c := range []struct {
		modification simulator.Modification
		kept         bool
	}{
		{simulator.ModifyAddsFields, true}, {simulator.ModifyReformatsTime, true}, {simulator.ModifyNumbersTime, true},
		{simulator.ModifyReorders, true}, {simulator.ModifyDropsTimes, false},
	} {
		t.Run(string(c.modification), func(t *testing.T) {
			for _, hidden := range []bool{true, false} {
				d := deploy(t, simulator.DeploymentOptions{WithoutNoSecrets: !hidden})
				d.SetConduct(simulator.Conduct{Modifies: []simulator.Modification{c.modification}})
				sent, err := d.read().WithRotationTime([]string{"audit-0"}, at)
				require.NoError(t, err)
				require.NoError(t, d.client.PutAutomationConfig(t.Context(), project, sent, nil))
				assert.Equal(t, c.kept, d.hasTime("audit-0", at))
				assert.False(t, sent.Equal(d.read()))
				assert.Equal(t, 42, int(d.read().Version()))
				assert.Equal(t, 4, strings.Count(d.Text(), simulator.PlantedConfigSecret+"-1")+strings.Count(d.Text(), simulator.PlantedConfigSecret+"-2")+
					strings.Count(d.Text(), simulator.PlantedConfigSecret+"-3")+strings.Count(d.Text(), simulator.PlantedConfigSecret+"-4"), "the secrets are still there")
				if c.kept {
					d.await(1)
					assert.True(t, d.process("audit-0").IsAtGoal(d.Version()))
				}
				assert.Len(t, d.Rotations("audit-0"), map[bool]int{true: 1}[c.kept])
			}
		})
	}
}

func TestVersionsAndGoals(t *testing.T) {
	d := deploy(t, simulator.DeploymentOptions{})
	d.SetConduct(simulator.Conduct{VersionStep: 2, GoalFrozen: true})
	before := d.Version()
	require.NoError(t, d.rotate(time.Now(), "audit-0"))
	assert.Equal(t, before+2, d.read().Version())
	assert.Equal(t, before, d.status().GoalVersion)
	assert.Empty(t, d.Rotations(""))
	assert.True(t, d.process("audit-0").IsAtGoal(before))
	d.SetConduct(simulator.Conduct{})
	d.await(1)
	assert.Equal(t, before+2, d.status().GoalVersion)
	d.SetConduct(simulator.Conduct{GoalAfter: time.Hour})
	require.NoError(t, d.rotate(time.Now().Add(time.Hour), "audit-0"))
	assert.Equal(t, before+2, d.status().GoalVersion)
	assert.Equal(t, before+3, d.read().Version())
}

func TestAgents(t *testing.T) {
	set := []string{"audit-0", "audit-1", "audit-2", "audit-3"}
	at := time.Now().Truncate(time.Second)

	t.Run("silent", func(t *testing.T) {
		d := deploy(t, simulator.DeploymentOptions{})
		long := at.Add(-time.Hour)
		d.SetAgent("audit-1", simulator.Agent{Silent: true, SilentSince: long})
		require.NoError(t, d.rotate(at, set...))
		d.await(3)
		assert.Equal(t, []string{"audit-2", "audit-3", "audit-0"}, d.order())
		assert.False(t, d.process("audit-1").IsAtGoal(d.Version()))
		assert.Zero(t, d.process("audit-1").ErrorCode)
		assert.True(t, d.hosts("")[d.Process("audit-1").Host].LastPing.Equal(long))
		d.SetAgent("audit-1", simulator.Agent{})
		d.await(4)
	})
	t.Run("down", func(t *testing.T) {
		d := deploy(t, simulator.DeploymentOptions{})
		d.SetAgent("audit-1", simulator.Agent{Down: true})
		assert.Equal(t, "DOWN", d.hosts("")[d.Process("audit-1").Host].ReplicaStateName)
		d.SetAgent("audit-1", simulator.Agent{Unmonitored: true, Unreported: true})
		assert.NotContains(t, d.hosts(""), d.Process("audit-1").Host)
		assert.Len(t, d.status().Processes, 13)
	})
	t.Run("stuck", func(t *testing.T) {
		d := deploy(t, simulator.DeploymentOptions{})
		d.SetAgent("audit-2", simulator.Agent{ErrorCode: 143, ErrorText: "cannot start"})
		require.NoError(t, d.rotate(at, set...))
		d.await(1)
		p := d.process("audit-2")
		assert.EqualValues(t, 143, p.ErrorCode)
		assert.Equal(t, "cannot start", p.ErrorText)
		assert.Equal(t, []string{"audit-1"}, d.order(), "the others wait")
		assert.False(t, d.process("audit-0").IsAtGoal(d.Version()))
		d.SetAgent("audit-2", simulator.Agent{})
		d.await(4)
		assert.Equal(t, []string{"audit-1", "audit-2", "audit-3", "audit-0"}, d.order())
		assert.True(t, d.process("audit-2").IsAtGoal(d.Version()))
	})
	t.Run("slow", func(t *testing.T) {
		d := deploy(t, simulator.DeploymentOptions{})
		d.SetAgent("audit-1", simulator.Agent{Waits: time.Hour})
		d.SetAgent("audit-2", simulator.Agent{Takes: time.Hour})
		require.NoError(t, d.rotate(at, set[1:]...))
		assert.NotEmpty(t, d.process("audit-2").Plan)
		assert.False(t, d.process("audit-1").IsAtGoal(d.Version()))
		assert.Empty(t, d.Rotations(""))
	})
	t.Run("wrongly at the goal", func(t *testing.T) {
		d := deploy(t, simulator.DeploymentOptions{})
		d.SetAgent("audit-1", simulator.Agent{WronglyAtGoal: true, Silent: true})
		d.SetAgent("audit-2", simulator.Agent{WronglyAtGoal: true, Waits: 50 * time.Millisecond})
		require.NoError(t, d.rotate(at, "audit-1", "audit-2"))
		for _, name := range []string{"audit-1", "audit-2"} {
			assert.True(t, d.process(name).IsAtGoal(d.Version()), name)
			assert.Empty(t, d.process(name).Plan)
		}
		d.await(1)
		assert.Equal(t, []string{"audit-2"}, d.order())
		assert.False(t, d.hosts("")[d.Process("audit-1").Host].LastRestart.After(at))
	})
	t.Run("keeps its key", func(t *testing.T) {
		d := deploy(t, simulator.DeploymentOptions{})
		key := d.Process("audit-1").Key
		d.SetAgent("audit-1", simulator.Agent{KeepsKey: true})
		d.Edit(simulator.SetProcessField("audit-2", `"7"`, "args2_6", "security", "kmip", "keyIdentifier"))
		require.NoError(t, d.rotate(at, "audit-1", "audit-2"))
		await(t, d.om, func(simulator.Ledger) bool { return d.Process("audit-2").LastRestart.After(at) })
		assert.Equal(t, key, d.Process("audit-1").Key)
		assert.True(t, d.Process("audit-1").LastRestart.After(at))
		assert.Empty(t, d.Rotations(""))
	})
	t.Run("rotates again", func(t *testing.T) {
		d := deploy(t, simulator.DeploymentOptions{})
		d.SetAgent("audit-1", simulator.Agent{RotatesAgain: true})
		require.NoError(t, d.rotate(at, "audit-1", "audit-2"))
		d.await(2)
		require.NoError(t, d.rotate(at, "audit-1", "audit-2"))
		d.await(3)
		assert.Len(t, d.Rotations("audit-1"), 2)
		assert.Len(t, d.Rotations("audit-2"), 1)
	})
	t.Run("the time is dropped", func(t *testing.T) {
		d := deploy(t, simulator.DeploymentOptions{})
		d.SetAgent("audit-2", simulator.Agent{Waits: time.Hour})
		require.NoError(t, d.rotate(at, "audit-1", "audit-2"))
		d.await(1)
		d.Act(simulator.Rival{Change: simulator.RivalDropsTimes})
		d.SetAgent("audit-2", simulator.Agent{})
		assert.True(t, d.process("audit-2").IsAtGoal(d.Version()), "nothing asks for a rotation")
		assert.Len(t, d.Rotations(""), 1)
		require.NoError(t, d.rotate(at, "audit-1", "audit-2"))
		d.await(2)
		assert.Equal(t, []string{"audit-1", "audit-2"}, d.order())
	})
}

func TestMemberSnapshots(t *testing.T) {
	d := deploy(t, simulator.DeploymentOptions{SnapshotEvery: 20 * time.Millisecond, WholeSeconds: true})
	shown := func(cluster int) []opsmanager.Snapshot {
		snapshots, err := d.client.Snapshots(t.Context(), project, d.ClusterIDs[cluster], 3)
		require.NoError(t, err)
		return snapshots
	}
	require.Eventually(t, func() bool { return len(shown(0)) > 2 }, 10*time.Second, time.Millisecond)
	newest := shown(0)[0].Created
	assert.Equal(t, newest.Truncate(time.Second), newest)
	require.NoError(t, d.rotate(time.Now(), "audit-2"))
	d.await(1)
	require.Eventually(t, func() bool { return shown(1)[0].Parts[0].KeyUUID == d.Process("audit-2").Key }, 10*time.Second, time.Millisecond)

	d = deploy(t, simulator.DeploymentOptions{})
	d.SetConduct(simulator.Conduct{WithoutMachineID: true})
	d.TakeMemberSnapshot(d.ClusterIDs[1], simulator.MemberSnapshot{})
	d.SetConduct(simulator.Conduct{WithoutKeyID: true})
	running := d.TakeMemberSnapshot(d.ClusterIDs[0], simulator.MemberSnapshot{Running: true, WithoutShards: []string{"orders-1"}, From: []string{"orders-0-1"}})
	assert.Empty(t, shown(1)[0].Parts[0].MachineID)
	assert.NotEmpty(t, shown(1)[0].Parts[0].KeyUUID)
	assert.True(t, shown(0)[0].Incomplete)
	assert.Equal(t, []string{"orders-1"}, shown(0)[0].MissingShards)
	assert.Equal(t, d.Process("orders-0-1").Host, shown(0)[0].Parts[0].MachineID)
	assert.True(t, shown(0)[0].Parts[0].LacksKeyID())
	d.CompleteSnapshot(running.ID)
	assert.False(t, shown(0)[0].Incomplete)
}

// A simulator that runs for a long time, or whose clock jumps, keeps the latest of
// its scheduled snapshots, and the one that it began with.
func TestScheduledSnapshotsExpire(t *testing.T) {
	var ahead atomic.Int64
	d := deploy(t, simulator.DeploymentOptions{SnapshotEvery: time.Hour, Clusters: []simulator.DeployedCluster{{Name: "audit"}}},
		simulator.Options{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	count := func() int {
		snapshots, err := d.client.Snapshots(t.Context(), project, d.ClusterIDs[0], 1)
		require.NoError(t, err)
		return len(snapshots)
	}
	for range 3 {
		ahead.Add(int64(time.Hour))
		d.Version()
	}
	assert.Equal(t, 1+3, count())
	ahead.Add(int64(1000 * time.Hour))
	assert.Equal(t, 1+1, count(), "it does not catch up")
	for range 100 {
		ahead.Add(int64(time.Hour))
		d.Version()
	}
	assert.InDelta(t, 1+48, count(), 2)
}

// The keys of the processes are made in a KMIP server. A member that gets none
// stays down, and so do those after it, until the server is back.
func TestKeysOfMembersAreMadeInAKMIPServer(t *testing.T) {
	kmip := kmipsimulator.StartForTest(t, kmipsimulator.Options{})
	ca, certificate, key := readClient(t, kmip)
	connection := kmipkeys.Connection{Address: kmip.Address(), ServerName: "127.0.0.1", CA: ca, Certificate: certificate, Key: key}
	unreachable := make(chan struct{}, 1)
	d := deploy(t, simulator.DeploymentOptions{}, simulator.Options{NewKey: func() (string, error) {
		select {
		case <-unreachable:
			return "", errors.New("unreachable")
		default:
			return connection.NewActiveKey(context.Background(), "")
		}
	}})
	at := time.Now().Truncate(time.Second)
	require.NoError(t, d.rotate(at, "audit-1", "audit-2"))
	d.await(2)
	client := kmip.EvidenceClient(t, "keyturn")
	for _, r := range d.Rotations("") {
		evidence := client.Ask(t.Context(), r.NewKey)
		assert.Equal(t, kmipevidence.OutcomeWitnessed, evidence.Outcome, evidence.Message)
		assert.False(t, evidence.InitialDate.Before(at))
	}
	unreachable <- struct{}{}
	require.NoError(t, d.rotate(at.Add(time.Hour), "audit-1", "audit-2"))
	await(t, d.om, func(simulator.Ledger) bool { return d.process("audit-1").ErrorCode == 143 })
	assert.Equal(t, "DOWN", d.hosts("")[d.Process("audit-1").Host].ReplicaStateName)
	assert.Len(t, d.Rotations(""), 2)
	d.await(4)
	assert.Equal(t, []string{"audit-1", "audit-2"}, d.order()[2:])
	await(t, d.om, func(simulator.Ledger) bool { return d.process("audit-1").IsAtGoal(d.Version()) })
}

// A simulator that is restarted goes on with what its agents had begun.
func TestADeploymentSurvivesARestart(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.json")
	d := deploy(t, simulator.DeploymentOptions{MemberTime: 20 * time.Millisecond, DocumentSize: 50_000})
	_, err := d.om.UseStateFile(state)
	require.NoError(t, err)
	d.Edit(simulator.SetField(`"\ud800"`, "lone"))
	require.NoError(t, d.rotate(time.Now(), "audit-1", "audit-2"))
	text, key := d.Text(), d.Process("audit-0").Key
	d.om.Close()

	om := simulator.Start(t, simulator.Options{})
	restored, err := om.UseStateFile(state)
	require.NoError(t, err)
	assert.True(t, restored)
	again := deployed{om.Deployment(project), t, om, nil}
	assert.Equal(t, d.ClusterIDs, again.ClusterIDs)
	assert.Equal(t, text, again.Text())
	assert.Equal(t, key, again.Process("audit-0").Key)
	assert.Len(t, again.Puts(), 1)
	again.await(2)
	assert.Nil(t, om.Deployment("5196d3628d022db4cbc26d9f"))
}

// What a project without a deployment, a key without the role, another path and
// another clock get.
func TestOtherAnswersOfAutomation(t *testing.T) {
	d := deploy(t, simulator.DeploymentOptions{WithoutNoSecrets: true}, simulator.Options{Now: func() time.Time { return time.Now().Add(2 * time.Minute) }})
	assert.False(t, d.read().HasNoSecrets())
	least, most, known := d.client.ClockOffset()
	assert.True(t, known)
	assert.InDelta(t, 120, least.Seconds(), 5)
	assert.InDelta(t, 120, most.Seconds(), 5)
	c := newClient(t, d.om)
	const other = "5196d3628d022db4cbc26d9f"
	d.om.AddProject(simulator.Project{ID: other})
	assert.JSONEq(t, `{"version":0,"processes":[],"replicaSets":[],"sharding":[]}`, string(c.get("/groups/"+other+"/automationConfig/noSecrets").body))
	assert.Equal(t, http.StatusBadRequest, c.put("/groups/"+other+"/automationConfig", "{}").StatusCode)
	for _, path := range []string{"automationStatus", "hosts", "events", "controlledFeature"} {
		assert.Equal(t, http.StatusOK, c.get("/groups/"+other+"/"+path).StatusCode, path)
		assert.Equal(t, http.StatusNotFound, c.get("/groups/5196d3628d022db4cbc26d90/"+path).StatusCode, path)
	}
	assert.Equal(t, http.StatusBadRequest, c.get("/groups/"+project+"/events?minDate=yesterday").StatusCode)
	d.om.AddAPIKey(simulator.APIKey{PublicKey: "reader", PrivateKey: "p", ReadOnly: true})
	reader := newClient(t, d.om)
	reader.user, reader.password = "reader", "p"
	assert.Equal(t, http.StatusUnauthorized, reader.get("/groups/"+project+"/automationConfig").StatusCode)
	assert.Equal(t, http.StatusUnauthorized, reader.put("/groups/"+project+"/automationConfig", d.Text()).StatusCode)
	assert.Equal(t, http.StatusOK, reader.get("/groups/"+project+"/automationStatus").StatusCode)
	assert.Empty(t, d.Puts())
}

func TestRivalsOfFaultsAreChecked(t *testing.T) {
	for mentions, r := range map[string]simulator.Rival{
		"rival.when":   {Change: simulator.RivalTouches},
		"rival.change": {When: simulator.RivalAfter},
		"rival.time":   {When: simulator.RivalAfter, Change: simulator.RivalSetsTimes},
	} {
		assert.ErrorContains(t, simulator.RivalAtPut(project, r).Validate(), mentions)
	}
	assert.ErrorContains(t, simulator.Fault{
		Method: http.MethodGet, BeforeAuthentication: true, Hang: true,
		Rival: &simulator.Rival{When: simulator.RivalAfter, Change: simulator.RivalTouches},
	}.Validate(), "before authentication")
	d := deploy(t, simulator.DeploymentOptions{})
	status, answer := control(t, d.om, http.MethodPost, "/simulator/faults",
		`{"method":"GET","kind":"automationConfig","rival":{"when":"after","change":"touches","by":"dana"}}`)
	assert.Equal(t, http.StatusCreated, status, "%s", answer)
	before := d.Version()
	assert.Equal(t, before, d.read().Version())
	assert.Equal(t, before+1, d.Version())
}

func readClient(t *testing.T, kmip *kmipsimulator.Server) (ca, certificate, key []byte) {
	t.Helper()
	var texts [][]byte
	caFile, certificateFile, keyFile, err := kmip.WriteClient(t.TempDir(), "mongod")
	require.NoError(t, err)
	for _, path := range []string{caFile, certificateFile, keyFile} {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		texts = append(texts, text)
	}
	return texts[0], texts[1], texts[2]
}

// A simulator in another process is steered, and judged, from outside.
func TestADeploymentIsSteeredFromOutside(t *testing.T) {
	d := deploy(t, simulator.DeploymentOptions{})
	before := d.Version()
	status, answer := control(t, d.om, http.MethodPost, "/simulator/deployments", `{
		"agents":{"audit-0":{"waits":"1h","errorText":"x","errorCode":7}}, "conduct":{"versionStep":3,"goalAfter":"1ms"},
		"rival":{"change":"touches","by":"dana"}, "snapshots":{"`+d.ClusterIDs[1]+`":{"from":["audit-1"]}}}`)
	require.Equal(t, http.StatusOK, status, "%s", answer)
	assert.Equal(t, before+3, d.Version())
	require.Eventually(t, func() bool { return d.status().GoalVersion == before+3 }, 10*time.Second, time.Millisecond)
	snapshots, err := d.client.Snapshots(t.Context(), project, d.ClusterIDs[1], 1)
	require.NoError(t, err)
	assert.Equal(t, d.Process("audit-1").Host, snapshots[0].Parts[0].MachineID)
	for body, mentions := range map[string]string{
		`{"projectId":"5196d3628d022db4cbc26d9f"}`: "no deployment", `{"agents":{"z":{}}}`: "process z", `{"agents":{"audit-0":{"wait":"1h"}}}`: "wait",
		`{"snapshots":{"z":{}}}`: "cluster z", `{"snapshots":{"` + d.ClusterIDs[1] + `":{"from":["z"]}}}`: "process z",
		`{"rival":{"change":"z"}}`: "rival.change", `{"conduct":{"x":1}}`: "x", `{"z":1}`: "z", `{`: "EOF",
	} {
		status, answer := control(t, d.om, http.MethodPost, "/simulator/deployments", body)
		assert.Equal(t, http.StatusBadRequest, status, body)
		assert.Contains(t, string(answer), mentions)
	}
	assert.Equal(t, before+3, d.Version())
}

// The ledger finds what a rotation must not do.
func TestViolations(t *testing.T) {
	d := deploy(t, simulator.DeploymentOptions{MemberTime: time.Millisecond})
	c := newClient(t, d.om)
	path := "/groups/" + project + "/automationConfig"
	at := time.Now().Truncate(time.Second)
	require.NoError(t, d.rotate(at, "audit-0", "audit-1"))
	d.await(2)
	d.Act(simulator.Rival{Change: simulator.RivalDropsTimes, Processes: []string{"audit-0"}})
	require.NoError(t, d.rotate(at, "audit-0", "audit-1"))
	assert.Empty(t, d.Violations())
	for name, change := range map[string]func([]byte) []byte{
		"changed other bytes": simulator.SetField("1", "ldap", "timeoutMS"),
		"removed the time of": simulator.DropRotationTimes("audit-1"),
		"set the time of":     simulator.SetRotationTime(at.Add(-time.Hour), "audit-0"),
	} {
		d.om.ResetLedger()
		require.Equal(t, http.StatusOK, c.put(path, string(change(c.get(path).body))).StatusCode)
		assert.Contains(t, strings.Join(d.Violations(), "\n"), name)
	}
	d.om.ResetLedger()
	d.Edit(simulator.DropRotationTimes())
	for i, hours := range []time.Duration{1, 2, 1} {
		require.NoError(t, d.rotate(at.Add(hours*time.Hour), "audit-2"))
		if i == 1 {
			d.Act(simulator.Rival{Change: simulator.RivalDropsTimes})
		}
	}
	require.Len(t, d.Violations(), 1)
	assert.Contains(t, d.Violations()[0], "an earlier rotation's time")

	d.om.ResetLedger()
	d.SetAgent("audit-3", simulator.Agent{RotatesAgain: true})
	for i := range 2 {
		require.NoError(t, d.rotate(at, "audit-3"))
		d.await(i + 1)
	}
	require.Len(t, d.Violations(), 1)
	assert.Contains(t, d.Violations()[0], "audit-3 got two keys for")
}
