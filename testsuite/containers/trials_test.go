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
)

// trial is a fault in the middle of a rotation. It does the fault, and tells the
// moment from which the recovery counts: of the crash, or of the fault's end.
type trial struct {
	name  string
	fault func(rotation) time.Time
}

// groups of trials each have containers of their own, beside each other. The
// longest comes first: a request that hangs in a network that was cut off does
// so for a minute.
var groups = []struct {
	name   string
	trials []trial
	// after is told the first of the clusters that no trial has rotated.
	after func(p project, next int)
}{
	{"Networks", []trial{
		{"WorkerIsCutOffFromOpsManager", func(r rotation) time.Time { return r.cutOff(opsManagerNetwork) }},
		{"WorkerIsCutOffFromTemporal", func(r rotation) time.Time { return r.cutOff(temporalNetwork) }},
	}, nil},
	{"Crashes", []trial{
		{"WorkerCrashes", func(r rotation) time.Time { return r.crash(workerService) }},
		{"TemporalCrashes", func(r rotation) time.Time { return r.crash(temporalService) }},
		{"OpsManagerCrashes", func(r rotation) time.Time { return r.crash(simulatorService) }},
	}, nil},
	{"Restarts", []trial{
		{"AllIsStoppedAndStarted", rotation.stopAndStart},
		{"AllIsRemovedButItsVolumes", rotation.downAndUp},
		{"WorkerIsReplacedByANewVersion", rotation.upgrade},
	}, project.checkTwoWorkers},
}

// moreClusters are those of a group that no trial rotates.
const moreClusters = 4

func TestRotationsInContainers(t *testing.T) {
	needEngine(t)
	needImages(t)
	built := buildImages(t)
	t.Run("Image", func(t *testing.T) {
		t.Parallel()
		built.check(t)
	})
	for _, group := range groups {
		t.Run(group.name, func(t *testing.T) {
			t.Parallel()
			p := newProject(t, built, 1+len(group.trials)+moreClusters)
			p.bringUp()
			for i, trial := range group.trials {
				t.Run(trial.name, func(t *testing.T) { p.with(t).try(trial, i+1) })
			}
			if group.after != nil {
				group.after(p, 1+len(group.trials))
			}
		})
	}
}

// bringUp starts all, and returns when a first rotation is done.
func (p project) bringUp() {
	p.Helper()
	began := time.Now()
	p.compose(first, "up", "-d", "--no-build")
	p.rotate(0).requireRotated()
	p.Logf("from docker compose up until the first rotation of %d targets is done, with %s a request: %.1fs", targets, latency, time.Since(began).Seconds())
	p.checkContainers()
}

// try rotates the n-th cluster.
func (p project) try(t trial, n int) {
	p.Helper()
	p.closeGate()
	r := p.rotate(n)
	r.awaitMiddle()
	over := t.fault(r)
	r.openGate()
	settled := 0
	for _, target := range r.requireRotated().Targets {
		if target.Ambiguous {
			settled++
		}
	}
	r.Logf("%d targets verified, 1 PUT each, %d of them settled by reading; the next activity was completed after %.1fs; %.1fs in all",
		targets, settled, r.recovered(over).Seconds(), time.Since(r.began).Seconds())
}

func (r rotation) cutOff(network string) time.Time {
	r.Helper()
	mend := r.cut(network)
	defer mend()
	r.awaitTrouble()
	return time.Now()
}

// draining opens the gate as soon as the worker has been told to end, for what
// waits for its end.
func (r rotation) draining(stop func()) {
	r.Helper()
	worker, began, opened := r.container(workerService), time.Now(), make(chan struct{})
	go func() {
		defer close(opened)
		for !drains(worker, began) && r.Context().Err() == nil {
			time.Sleep(50 * time.Millisecond)
		}
		_, _ = r.control(http.MethodDelete, nil) // Ops Manager may be stopped already
	}()
	stop()
	<-opened
}

// drains tells what a worker has said since then. A container that is there no
// more has drained.
func drains(worker string, since time.Time) bool {
	log, err := exec.Command("docker", "logs", "--since", since.Format(time.RFC3339Nano), worker).CombinedOutput()
	return err != nil || bytes.Contains(log, []byte("msg=draining"))
}

func (r rotation) stopAndStart() time.Time {
	r.Helper()
	r.draining(func() { r.compose(first, "stop") })
	began := time.Now()
	r.compose(first, "start")
	return began
}

func (r rotation) downAndUp() time.Time {
	r.Helper()
	r.draining(func() { r.compose(first, "down") })
	require.Empty(r, r.containers(workerService))
	began := time.Now()
	r.compose(first, "up", "-d", "--no-build")
	return began
}

func (r rotation) upgrade() time.Time {
	r.Helper()
	before := r.container(workerService)
	began := time.Now()
	r.draining(func() { r.compose(second, "up", "-d", "--no-build", workerService) })
	worker := r.container(workerService)
	require.NotEqual(r, before, worker)
	require.Equal(r, "worker version "+r.images.version(second), output(r.T, "docker", "exec", worker, "/usr/local/bin/worker", "--version"))
	return began
}

// checkTwoWorkers lets two workers share rotations. Who gets which activity is
// Temporal's choice, so one rotation may not be enough to see both at work.
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

// checkContainers looks at how the services run.
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
		told := p.inspect(container, "{{json .Config}}") + p.inspect(container, "{{json .Args}}")
		assert.NotContains(p, told, simulator.DefaultPrivateKey, "a secret is a file")
	}
}
