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

	"keyturn/testsuite/support/freeport"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
)

// The services of docker-compose.yml.
const (
	temporalService  = "temporal"
	workerService    = "worker"
	simulatorService = "opsmanager-simulator"
	postgresService  = "postgres"
)

// The networks between them.
const (
	temporalNetwork   = "temporal"
	opsManagerNetwork = "ops-manager"
)

// The size of the clusters: enough requests for a fault to occur in the middle
// of a rotation.
const (
	targets     = 20
	concurrency = 3
	latency     = 300 * time.Millisecond
)

// override changes only the size and the pace, not how the services are run.
const override = `services:
  opsmanager-simulator:
    command:
      - --listen=:8080
      - --state=/home/nonroot/state.json
      - --kmip-address=kmip-simulator:5696
      - --kmip-ca=/run/kmip/ca.pem
      - --kmip-cert=/run/kmip/client-ops-manager.pem
      - --kmip-key=/run/kmip/client-ops-manager.key
      - --shards=%d
      - --clusters=%d
      - --latency=%s
      - --deployment-clusters=1
      - --deployment-shards=1
      - --deployment-member-time=1s
      - --deployment-snapshot-every=10s
`

// The deployment's replica sets: its shard and its config server, of three members
// each.
const processes = 2 * 3

// waitTimeout limits how long a test waits: more than the minute after which a
// request times out.
const waitTimeout = 3 * time.Minute

// project is docker-compose.yml, started under a unique project name.
type project struct {
	*testing.T
	name     string
	images   images
	clusters int
	ports    map[string]int // by variable
	files    []string       // arguments with the project and its files
	settings string         // the file in place of .env
	temporal client.Client
}

// newProject prepares a project with a number of clusters and starts nothing
// yet. Everything is removed when the test ends.
func newProject(t *testing.T, built images, clusters int, profiles string, settings ...string) project {
	t.Helper()
	group := strings.ToLower(t.Name()[strings.LastIndex(t.Name(), "/")+1:])
	p := project{T: t, name: built.prefix + "-" + group, images: built, clusters: clusters, ports: map[string]int{}}
	for _, variable := range []string{temporalPort, uiPort, simulatorPort} {
		port, err := freeport.Choose()
		require.NoError(t, err)
		p.ports[variable] = port
	}
	changes := filepath.Join(t.TempDir(), "override.yml")
	require.NoError(t, os.WriteFile(changes, fmt.Appendf(nil, override, targets-1, clusters, latency), 0o600))
	p.settings = settingsFile(t, append(settings, "COMPOSE_PROFILES="+profiles)...)
	p.files = []string{"--env-file", p.settings, "-p", p.name, "-f", "docker-compose.yml", "-f", changes}
	var err error
	p.temporal, err = client.NewLazyClient(client.Options{HostPort: p.address(temporalPort), Logger: log.NewStructuredLogger(discard)})
	require.NoError(t, err)
	t.Cleanup(p.temporal.Close)
	t.Cleanup(p.remove)
	return p
}

// The variables of docker-compose.yml for the ports on this machine.
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
	return p.images.compose(p.T, version, p.variables(), slices.Concat(p.files, arguments)...)
}

// variables of docker-compose.yml that are not in the file of settings.
func (p project) variables() (variables []string) {
	for variable, port := range p.ports {
		variables = append(variables, variable+"="+strconv.Itoa(port))
	}
	return variables
}

func (p project) remove() {
	if p.Failed() {
		p.Log(p.compose(first, "logs", "--no-color", "--tail", "60"))
	}
	p.compose(first, "down", "--volumes", "--remove-orphans", "--timeout", "5")
}

// container is the only container of a service.
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

// inspect formats properties of a container with a template.
func (p project) inspect(container, template string) string {
	p.Helper()
	return output(p.T, "docker", "inspect", "--format", template, container)
}

// crash kills the process of a service like a crash: after docker kill, the
// engine would not restart the container. It returns the time of the crash.
func (p project) crash(service string) time.Time {
	p.Helper()
	return p.crashContainer(p.container(service), service)
}

func (p project) crashContainer(container, service string) time.Time {
	p.Helper()
	pid, err := strconv.Atoi(p.inspect(container, "{{.State.Pid}}"))
	require.NoError(p, err)
	require.Positive(p, pid, "%s is not running", service)
	crashedAt := time.Now()
	require.NoError(p, syscall.Kill(pid, syscall.SIGKILL), "this test kills processes of containers: run it as root on the machine of the engine")
	p.await(service+" is restarted", func() bool {
		state := strings.Fields(p.inspect(container, "{{.State.Running}} {{.State.Pid}} {{.RestartCount}}"))
		return state[0] == "true" && state[1] != strconv.Itoa(pid) && state[2] != "0"
	})
	return crashedAt
}

// disconnect disconnects the worker from a network until the returned function
// is called.
func (p project) disconnect(network string) (reconnect func()) {
	p.Helper()
	worker, name := p.container(workerService), p.name+"_"+network
	output(p.T, "docker", "network", "disconnect", name, worker)
	return func() { output(p.T, "docker", "network", "connect", name, worker) }
}

// await waits until a condition holds.
func (p project) await(what string, holds func() bool) {
	p.Helper()
	require.Eventually(p, holds, waitTimeout, 50*time.Millisecond, "%s", what)
}
