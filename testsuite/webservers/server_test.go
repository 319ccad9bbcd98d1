package webservers

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

	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
)

// patience is how long a server may take to come up or to end.
const patience = 30 * time.Second

// webServer is a web server that asks for digest credentials and passes what it
// lets through on to a simulator, which asks for none.
type webServer struct {
	kind
	url       string
	directory string
	command   *exec.Cmd
	output    bytes.Buffer
	ended     chan struct{}
}

// kind is a web server with one way of asking for credentials.
type kind struct {
	// programs are the names that its program goes by.
	programs  []string
	arguments func(configuration string) []string
	template  string
	// extra goes into the template: the directives that make the kind.
	extra string
	// memory that Apache has for its nonces.
	memory string
	// hash is what its algorithm hashes with, as the user file has it.
	hash func(string) string
	// environment of the process, besides the test's own.
	environment []string
}

// with is the same kind with further directives.
func (k kind) with(directives string) kind {
	k.extra += directives + "\n"
	return k
}

// start runs a web server in front of a simulator until the test ends. Its
// address is a free port of the loopback interface.
func (k kind) start(t *testing.T, om *simulator.Server, users ...user) *webServer {
	t.Helper()
	program := k.find(t)
	w := &webServer{kind: k, directory: t.TempDir(), ended: make(chan struct{})}
	port := freePort(t)
	w.url = fmt.Sprintf("http://127.0.0.1:%d", port)
	w.setUsers(t, users...)
	w.write(t, "configuration", w.configuration(t, port, om))
	w.openToServer(t)
	w.command = exec.Command(program, k.arguments(w.path("configuration"))...)
	w.command.Env = append(os.Environ(), k.environment...)
	w.command.Stdout, w.command.Stderr = &w.output, &w.output
	require.NoError(t, w.command.Start())
	go func() {
		_ = w.command.Wait() // a server that ended too early is seen by its silence
		close(w.ended)
	}()
	t.Cleanup(func() { w.stop(t) })
	w.awaitAnswer(t)
	return w
}

// find skips the test where the program isn't installed: it is no part of what
// keyturn needs.
func (k kind) find(t *testing.T) string {
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

// openToServer lets a server that root starts, and that then becomes somebody
// else, into the test's directory.
func (w *webServer) openToServer(t *testing.T) {
	t.Helper()
	require.NoError(t, os.Chmod(w.directory, 0o755))
	require.NoError(t, os.Chmod(filepath.Dir(w.directory), 0o755))
}

// awaitAnswer waits for the challenge that every server sends first.
func (w *webServer) awaitAnswer(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for w.probe() != http.StatusUnauthorized {
		select {
		case <-w.ended:
			t.Fatalf("%s has ended:\n%s", w.command.Path, w.complaints())
		default:
		}
		if time.Now().After(deadline) {
			w.stop(t)
			t.Fatalf("%s does not ask for credentials:\n%s", w.command.Path, w.complaints())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// probe asks for a page that no test asks for; 0 is no answer.
func (w *webServer) probe() int {
	answer, err := http.Get(w.url + probePath)
	if err != nil {
		return 0
	}
	_ = answer.Body.Close() // nothing was written
	return answer.StatusCode
}

const probePath = "/probe"

// complaints may be read once the server has ended.
func (w *webServer) complaints() string {
	log, _ := os.ReadFile(w.path("errors")) // Apache's; lighttpd has none
	return w.output.String() + string(log)
}

// stop has the server end, and with that write its log to the end.
func (w *webServer) stop(t *testing.T) {
	t.Helper()
	_ = w.command.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-w.ended:
	case <-time.After(patience):
		_ = w.command.Process.Kill()
		<-w.ended
		t.Errorf("%s had to be killed", w.command.Path)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, listener.Close()) }()
	return listener.Addr().(*net.TCPAddr).Port
}

// user is a name and a password that a server knows.
type user struct{ name, password string }

var operator = user{"keyturn", "0f1e2d3c-4b5a"}

// setUsers writes the user file as htdigest(1) does; both servers read it anew
// for each request.
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
		BaseURL: w.url, PublicKey: u.name, PrivateKey: u.password, RequestTimeout: patience,
	})
	require.NoError(t, err)
	return client
}

// exchange is a line of the server's log.
type exchange struct {
	status       int
	method, path string
	// port of the client: there is one for each connection.
	port string
}

// served stops the server and gives what it has answered, in order.
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

// statuses of the requests with a method; an empty one means any.
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

// connections is how many the requests came over.
func connections(exchanges []exchange) int {
	ports := map[string]bool{}
	for _, e := range exchanges {
		ports[e.port] = true
	}
	return len(ports)
}

// together runs a function many times at once.
func together(times int, do func()) {
	var group sync.WaitGroup
	for range times {
		group.Go(do)
	}
	group.Wait()
}
