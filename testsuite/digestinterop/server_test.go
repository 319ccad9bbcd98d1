package digestinterop

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/freeport"
)

// timeout limits how long a server takes to start or to stop.
const timeout = 30 * time.Second

// webServer is a web server that requires digest authentication and passes
// authenticated requests to a simulator without authentication.
type webServer struct {
	serverConfig
	url       string
	directory string
	command   *exec.Cmd
	output    bytes.Buffer
	ended     chan struct{}
}

// serverConfig is a web server with one configuration of digest authentication.
type serverConfig struct {
	// programs are the possible names of the executable.
	programs  []string
	arguments func(configuration string) []string
	template  string
	// extra has further directives for the template.
	extra string
	// memory is Apache's memory for nonces.
	memory string
	// hash is the hash function of the algorithm, for the user file.
	hash func(string) string
	// environment is added to the environment of the process.
	environment []string
}

// with adds directives.
func (k serverConfig) with(directives string) serverConfig {
	k.extra += directives + "\n"
	return k
}

// start runs a web server on a free loopback port in front of a simulator until
// the test ends.
func (k serverConfig) start(t *testing.T, om *simulator.Server, users ...user) *webServer {
	t.Helper()
	program := k.find(t)
	w := &webServer{serverConfig: k, directory: t.TempDir(), ended: make(chan struct{})}
	port, err := freeport.Choose()
	require.NoError(t, err)
	w.url = fmt.Sprintf("http://127.0.0.1:%d", port)
	w.setUsers(t, users...)
	w.write(t, "configuration", w.configuration(t, port, om))
	w.makeReadable(t)
	w.command = exec.Command(program, k.arguments(w.path("configuration"))...)
	w.command.Env = append(os.Environ(), k.environment...)
	w.command.Stdout, w.command.Stderr = &w.output, &w.output
	require.NoError(t, w.command.Start())
	go func() {
		_ = w.command.Wait() // awaitReady notices a server that ended
		close(w.ended)
	}()
	t.Cleanup(func() { w.stop(t) })
	w.awaitReady(t)
	return w
}

// find skips the test if the server is not installed: keyturn does not need it.
func (k serverConfig) find(t *testing.T) string {
	t.Helper()
	for _, name := range k.programs {
		for _, candidate := range []string{name, filepath.Join("/usr/sbin", name)} {
			if path, err := exec.LookPath(candidate); err == nil {
				return path
			}
		}
	}
	t.Skipf("%s is not installed", strings.Join(k.programs, " or "))
	return ""
}

func (w *webServer) configuration(t *testing.T, port int, om *simulator.Server) string {
	t.Helper()
	_, backendPort, err := net.SplitHostPort(strings.TrimPrefix(om.Address, "http://"))
	require.NoError(t, err)
	var text strings.Builder
	require.NoError(t, template.Must(template.New("").Parse(w.template)).Execute(&text, map[string]any{
		"Directory": w.directory, "Port": port, "BackendPort": backendPort,
		"Realm": simulator.Realm, "Extra": w.extra, "Memory": w.memory, "Root": os.Geteuid() == 0,
	}))
	return text.String()
}

func (w *webServer) path(name string) string { return filepath.Join(w.directory, name) }

func (w *webServer) write(t *testing.T, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(w.path(name), []byte(text), 0o644))
}

// makeReadable gives a server that root starts, and that then changes its user,
// access to the test's directory.
func (w *webServer) makeReadable(t *testing.T) {
	t.Helper()
	require.NoError(t, os.Chmod(w.directory, 0o755))
	require.NoError(t, os.Chmod(filepath.Dir(w.directory), 0o755))
}

// awaitReady waits for the challenge that every server sends first.
func (w *webServer) awaitReady(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for w.probe() != http.StatusUnauthorized {
		select {
		case <-w.ended:
			require.Fail(t, "the server has ended", "%s:\n%s", w.command.Path, w.logText())
		default:
		}
		if time.Now().After(deadline) {
			w.stop(t)
			require.Fail(t, "the server does not ask for credentials", "%s:\n%s", w.command.Path, w.logText())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// probe requests a page that no test requests, and returns the status; 0 means
// no response.
func (w *webServer) probe() int {
	answer, err := http.Get(w.url + probePath)
	if err != nil {
		return 0
	}
	_ = answer.Body.Close() // not read
	return answer.StatusCode
}

const probePath = "/probe"

// logText returns the output of a server that has ended.
func (w *webServer) logText() string {
	log, _ := os.ReadFile(w.path("errors")) // only Apache writes it
	return w.output.String() + string(log)
}

// stop ends the server, which completes its log.
func (w *webServer) stop(t *testing.T) {
	t.Helper()
	_ = w.command.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-w.ended:
	case <-time.After(timeout):
		_ = w.command.Process.Kill()
		<-w.ended
		assert.Fail(t, "the server did not stop and was killed", w.command.Path)
	}
}

// user has the name and the password of an account.
type user struct{ name, password string }

var operator = user{"keyturn", "0f1e2d3c-4b5a"}

// setUsers writes the user file in the format of htdigest(1); both servers read
// it for each request.
func (w *webServer) setUsers(t *testing.T, users ...user) {
	t.Helper()
	var lines strings.Builder
	for _, u := range users {
		fmt.Fprintf(&lines, "%s:%s:%s\n", u.name, simulator.Realm, w.hash(u.name+":"+simulator.Realm+":"+u.password))
	}
	w.write(t, "users", lines.String())
}

func (w *webServer) client(t *testing.T, u user) *opsmanager.Client {
	t.Helper()
	client, err := opsmanager.New(opsmanager.Config{
		BaseURL: w.url, PublicKey: u.name, PrivateKey: u.password, RequestTimeout: timeout,
	})
	require.NoError(t, err)
	return client
}

// exchange is a line of the server's log.
type exchange struct {
	status       int
	method, path string
	// port of the client, which identifies the connection.
	port string
}

// served stops the server and returns its responses, in order.
func (w *webServer) served(t *testing.T) (exchanges []exchange) {
	t.Helper()
	w.stop(t)
	log, err := os.ReadFile(w.path("log"))
	require.NoError(t, err)
	for line := range strings.Lines(string(log)) {
		fields := strings.Fields(line)
		require.Len(t, fields, 4, "a line of the log: %q", line)
		status, err := strconv.Atoi(fields[0])
		require.NoError(t, err)
		if fields[2] != probePath {
			exchanges = append(exchanges, exchange{status, fields[1], fields[2], fields[3]})
		}
	}
	return exchanges
}

// statuses returns the statuses of the requests with this method, or with any
// method for "".
func statuses(exchanges []exchange, method string) (found []int) {
	for _, e := range exchanges {
		if method == "" || e.method == method {
			found = append(found, e.status)
		}
	}
	return found
}

func count(exchanges []exchange, status int) int {
	return len(slices.DeleteFunc(statuses(exchanges, ""), func(s int) bool { return s != status }))
}

// connections counts the connections of the requests.
func connections(exchanges []exchange) int {
	ports := map[string]bool{}
	for _, e := range exchanges {
		ports[e.port] = true
	}
	return len(ports)
}

// inParallel runs a function many times in parallel.
func inParallel(times int, do func()) {
	var group sync.WaitGroup
	for range times {
		group.Go(do)
	}
	group.Wait()
}
