package containers

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"

	"keyturn/testsuite/temporalserver"
)

// The services of docker-compose.yml.
const (
	temporalService  = "temporal"
	workerService    = "worker"
	simulatorService = "opsmanager-simulator"
)

// The networks between them.
const (
	temporalNetwork   = "temporal"
	opsManagerNetwork = "ops-manager"
)

// The size of the trials: enough requests for a fault to meet a rotation in its
// middle.
const (
	targets     = 20
	concurrency = 3
	latency     = 300 * time.Millisecond
)

// override changes for the trials what their size asks for, and nothing of how
// the services are run.
const override = `services:
  opsmanager-simulator:
    command: [--listen, ":8080", --state, /home/nonroot/state.json, --shards, "%d", --clusters, "%d", --latency, %s]
`

// patience is how long a test waits for what takes a moment, or the minute after
// which a request is given up.
const patience = 3 * time.Minute

// project is docker-compose.yml, brought up under a name of its own.
type project struct {
	*testing.T
	name     string
	images   images
	clusters int
	ports    map[string]int // by the variables that set them
	files    []string       // arguments that name the project and its files
	temporal client.Client
}

// newProject prepares a project for a number of clusters; nothing is up yet.
// All of it is removed when the test ends.
func newProject(t *testing.T, built images, clusters int) project {
	t.Helper()
	group := strings.ToLower(t.Name()[strings.LastIndex(t.Name(), "/")+1:])
	p := project{T: t, name: built.prefix + "-" + group, images: built, clusters: clusters, ports: map[string]int{}}
	for _, variable := range []string{temporalPort, uiPort, simulatorPort} {
		port, err := temporalserver.FreePort()
		require.NoError(t, err)
		p.ports[variable] = port
	}
	changes := filepath.Join(t.TempDir(), "override.yml")
	require.NoError(t, os.WriteFile(changes, fmt.Appendf(nil, override, targets-1, clusters, latency), 0o600))
	p.files = []string{"--env-file", emptySettings(t), "-p", p.name, "-f", "docker-compose.yml", "-f", changes, "--profile", "simulator"}
	var err error
	p.temporal, err = client.NewLazyClient(client.Options{HostPort: p.address(temporalPort), Logger: log.NewStructuredLogger(discard)})
	require.NoError(t, err)
	t.Cleanup(p.temporal.Close)
	t.Cleanup(p.remove)
	return p
}

// The variables of docker-compose.yml that set the ports on this machine.
const (
	temporalPort  = "KEYTURN_TEMPORAL_PORT"
	uiPort        = "KEYTURN_UI_PORT"
	simulatorPort = "KEYTURN_SIMULATOR_PORT"
)

func (p project) address(variable string) string {
	return "127.0.0.1:" + strconv.Itoa(p.ports[variable])
}

// compose runs docker compose with the images of a version.
func (p project) compose(version string, arguments ...string) string {
	p.Helper()
	var variables []string
	for variable, port := range p.ports {
		variables = append(variables, variable+"="+strconv.Itoa(port))
	}
	return p.images.compose(p.T, version, variables, slices.Concat(p.files, arguments)...)
}

func (p project) remove() {
	if p.Failed() {
		p.Log(p.compose(first, "logs", "--no-color", "--tail", "60"))
	}
	p.compose(first, "down", "--volumes", "--remove-orphans", "--timeout", "5")
}

// container is the only one of a service.
func (p project) container(service string) string {
	p.Helper()
	ids := p.containers(service)
	require.Len(p, ids, 1, service)
	return ids[0]
}

func (p project) containers(service string) []string {
	p.Helper()
	return strings.Fields(output(p.T, "docker", "ps", "--all", "--quiet", "--no-trunc",
		"--filter", "label=com.docker.compose.project="+p.name, "--filter", "label=com.docker.compose.service="+service))
}

// inspect shows a container's property by a template.
func (p project) inspect(container, template string) string {
	p.Helper()
	return output(p.T, "docker", "inspect", "--format", template, container)
}

// crash kills a service's process as a fault of its own would: docker kill
// would count as an operator's stop, after which nothing is restarted. It
// returns the moment.
func (p project) crash(service string) time.Time {
	p.Helper()
	container := p.container(service)
	pid, err := strconv.Atoi(p.inspect(container, "{{.State.Pid}}"))
	require.NoError(p, err)
	require.Positive(p, pid, "%s runs no more", service)
	began := time.Now()
	require.NoError(p, syscall.Kill(pid, syscall.SIGKILL), "the trials kill processes of containers: they must be run by root, beside the engine")
	p.await(service+" is restarted", func() bool {
		state := strings.Fields(p.inspect(container, "{{.State.Running}} {{.State.Pid}} {{.RestartCount}}"))
		return state[0] == "true" && state[1] != strconv.Itoa(pid) && state[2] != "0"
	})
	return began
}

// cut takes the worker out of a network until the function returned is called.
func (p project) cut(network string) (mend func()) {
	p.Helper()
	worker, name := p.container(workerService), p.name+"_"+network
	output(p.T, "docker", "network", "disconnect", name, worker)
	return func() { output(p.T, "docker", "network", "connect", name, worker) }
}

// await asks until a condition holds.
func (p project) await(what string, holds func() bool) {
	p.Helper()
	require.Eventually(p, holds, patience, 50*time.Millisecond, "%s", what)
}
