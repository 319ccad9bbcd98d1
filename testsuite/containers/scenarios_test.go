package containers

import (
	"bytes"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// scenario is a fault in the middle of a rotation. apply returns the time from
// which the recovery is measured: of the crash, or of the end of the fault.
type scenario struct {
	name  string
	apply func(rotation) time.Time
}

// scenarioGroups have containers of their own and run in parallel. The longest
// group comes first: a request in a disconnected network hangs for a minute.
var scenarioGroups = []struct {
	name      string
	scenarios []scenario
	// after gets the index of the first cluster that no scenario has rotated.
	after func(p project, next int)
}{
	{"Networks", []scenario{
		{"WorkerDisconnectedFromOpsManager", func(r rotation) time.Time { return r.disconnectWorker(opsManagerNetwork) }},
		{"WorkerDisconnectedFromTemporal", func(r rotation) time.Time { return r.disconnectWorker(temporalNetwork) }},
	}, nil},
	{"Crashes", []scenario{
		{"WorkerCrashes", func(r rotation) time.Time { return r.crash(workerService) }},
		{"TemporalCrashes", func(r rotation) time.Time { return r.crash(temporalService) }},
		{"OpsManagerCrashes", func(r rotation) time.Time { return r.crash(simulatorService) }},
	}, project.restoreFile},
	{"Restarts", []scenario{
		{"StopAndStartAll", rotation.stopAndStart},
		{"RemoveAllButVolumes", rotation.downAndUp},
		{"UpgradeWorker", rotation.upgrade},
	}, project.checkTwoWorkers},
}

// moreClusters are clusters of a group that no scenario rotates.
const moreClusters = 4

func TestRotationsInContainers(t *testing.T) {
	requireEngine(t)
	requireImages(t)
	built := buildImages(t)
	t.Run("Image", func(t *testing.T) {
		t.Parallel()
		built.check(t)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		rotateWithPostgres(t, built)
	})
	for _, group := range scenarioGroups {
		t.Run(group.name, func(t *testing.T) {
			t.Parallel()
			p := newProject(t, built, 1+len(group.scenarios)+moreClusters, "simulator")
			p.bringUp()
			for i, scenario := range group.scenarios {
				t.Run(scenario.name, func(t *testing.T) { p.with(t).runScenario(scenario, i+1) })
			}
			if group.after != nil {
				group.after(p, 1+len(group.scenarios))
			}
		})
	}
}

// bringUp starts all services, and returns when a first rotation of each kind is
// done.
func (p project) bringUp() {
	p.Helper()
	startedAt := time.Now()
	p.compose(first, "up", "-d", "--no-build")
	for _, record := range p.rotate(0).requireRotated().Targets {
		require.NotNil(p, record.KMIP, record.Name)
		require.Equal(p, workflows.EvidenceWitnessed, record.KMIP.Outcome, record.Name)
	}
	p.Logf("docker compose up and the first rotation of %d targets, with %s per request: %.1fs", targets, latency, time.Since(startedAt).Seconds())
	p.rotateDeployment()
	p.Logf("and the first rotation of a deployment of %d processes: %.1fs", processes, time.Since(startedAt).Seconds())
	p.requireRecorded(0)
	p.checkContainers()
}

// runScenario applies a scenario to the rotation of the n-th cluster.
func (p project) runScenario(t scenario, n int) {
	p.Helper()
	p.blockPuts()
	r := p.rotate(n)
	r.awaitMiddle()
	over := t.apply(r)
	r.releasePuts()
	ambiguous := 0
	for _, target := range r.requireRotated().Targets {
		if target.Ambiguous {
			ambiguous++
		}
	}
	r.Logf("%d targets verified, 1 PUT each, %d of them ambiguous; the next activity was completed after %.1fs; %.1fs in total",
		targets, ambiguous, r.recovered(over).Seconds(), time.Since(r.startedAt).Seconds())
	r.requireRecorded(n)
}

func (r rotation) disconnectWorker(network string) time.Time {
	r.Helper()
	reconnect := r.disconnect(network)
	defer reconnect()
	r.awaitRetrying()
	return time.Now()
}

// releaseWhileDraining releases the PUTs as soon as the worker is draining,
// because stop waits for its end.
func (r rotation) releaseWhileDraining(stop func()) {
	r.Helper()
	worker, startedAt, opened := r.container(workerService), time.Now(), make(chan struct{})
	go func() {
		defer close(opened)
		for !isDraining(worker, startedAt) && r.Context().Err() == nil {
			time.Sleep(50 * time.Millisecond)
		}
		_, _ = r.control(http.MethodDelete, nil) // Ops Manager may have stopped already
	}()
	stop()
	<-opened
}

// isDraining reports whether a worker has logged that it is draining. A
// container that no longer exists has drained.
func isDraining(worker string, since time.Time) bool {
	log, err := exec.Command("docker", "logs", "--since", since.Format(time.RFC3339Nano), worker).CombinedOutput()
	return err != nil || bytes.Contains(log, []byte("msg=draining"))
}

func (r rotation) stopAndStart() time.Time {
	r.Helper()
	r.releaseWhileDraining(func() { r.compose(first, "stop") })
	startedAt := time.Now()
	r.compose(first, "start")
	return startedAt
}

func (r rotation) downAndUp() time.Time {
	r.Helper()
	r.releaseWhileDraining(func() { r.compose(first, "down") })
	require.Empty(r, r.containers(workerService))
	startedAt := time.Now()
	r.compose(first, "up", "-d", "--no-build")
	return startedAt
}

func (r rotation) upgrade() time.Time {
	r.Helper()
	before := r.container(workerService)
	startedAt := time.Now()
	r.releaseWhileDraining(func() { r.compose(second, "up", "-d", "--no-build", workerService) })
	worker := r.container(workerService)
	require.NotEqual(r, before, worker)
	require.Equal(r, "keyturn-worker version "+r.images.version(second), output(r.T, "docker", "exec", worker, "/usr/local/bin/keyturn-worker", "--version"))
	return startedAt
}

// checkTwoWorkers lets two workers share rotations. Temporal assigns the
// activities, so one rotation may not be enough for both to get some.
func (p project) checkTwoWorkers(next int) {
	p.Helper()
	p.compose(second, "up", "-d", "--no-build", "--scale", workerService+"=2", workerService)
	for _, worker := range p.containers(workerService) {
		p.awaitHealthy(worker)
	}
	shares := map[string]int{}
	for n := next; n < p.clusters && len(shares) < 2; n++ {
		r := p.rotate(n)
		r.requireRotated()
		for worker, activities := range r.workers() {
			shares[worker] += activities
		}
		p.Logf("activities by worker: %v", shares)
	}
	assert.Len(p, shares, 2, "each worker must have had activities")
}

func (p project) awaitHealthy(container string) {
	p.Helper()
	p.await("a container is healthy", func() bool { return p.inspect(container, "{{.State.Health.Status}}") == "healthy" })
}

// with is the project in a subtest.
func (p project) with(t *testing.T) project {
	p.T = t
	return p
}

// checkContainers checks how the services are run.
func (p project) checkContainers() {
	p.Helper()
	for _, service := range []string{temporalService, workerService, simulatorService} {
		container := p.container(service)
		assert.Equal(p, "true [ALL] [no-new-privileges:true] unless-stopped",
			p.inspect(container, "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{.HostConfig.RestartPolicy.Name}}"), service)
		p.awaitHealthy(container)
		for _, address := range strings.Fields(p.inspect(container, "{{range .HostConfig.PortBindings}}{{range .}}{{.HostIp}} {{end}}{{end}}")) {
			assert.Equal(p, "127.0.0.1", address, "%s must not be published beyond this machine", service)
		}
		visible := p.inspect(container, "{{json .Config}}") + p.inspect(container, "{{json .Args}}")
		assert.NotContains(p, visible, simulator.DefaultPrivateKey, "secrets are passed in files")
	}
}
