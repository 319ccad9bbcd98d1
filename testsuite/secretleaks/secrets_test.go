// Package secretleaks checks that secrets appear in nothing that users or
// operators can read.
package secretleaks

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/proto"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/eventreceiver"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/freeport"
	"keyturn/testsuite/support/programs"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/waiting"
	"keyturn/workflows"
)

func TestMain(m *testing.M) { temporalserver.Main(m) }

// The secrets: the valid key, the key of a connection that is refused, the secret in
// every response about a project, and what is secret about the receiver of events:
// its secret, as it is written down and as it is used, and its URL but for the host.
const (
	rightKey = "planted-right-private-key-7f3a91"
	wrongKey = "planted-wrong-private-key-0c55de"

	eventsKey      = "planted-events-secret-4d1f92ab70c3"
	eventsPath     = "planted-events-path-2be06c"
	eventsQuery    = "planted-events-query-91fe0d"
	eventsUser     = "planted-events-user-5a7c13"
	eventsPassword = "planted-events-password-e3d8b2"
)

var (
	eventsSecret = base64.StdEncoding.EncodeToString([]byte(eventsKey))
	secrets      = []string{rightKey, wrongKey, simulator.PlantedSecret, eventsKey, eventsSecret, eventsPath, eventsQuery, eventsUser, eventsPassword}
)

// visible is everything that someone can read, by its source.
type visible map[string][]byte

func (f visible) requireClean(t *testing.T) {
	t.Helper()
	for where, text := range f {
		assert.NotEmpty(t, text, "%s must have been read", where)
		for _, secret := range secrets {
			assert.NotContains(t, string(text), secret, where)
		}
	}
}

// A rotation meets many faults, with an Ops Manager that repeats the key in its
// responses and a worker that crashes at the end.
func TestPrivateKeyAppearsNowhere(t *testing.T) {
	s := fixture.NewServer(t, simulator.Options{PrivateKey: rightKey})
	cluster := s.OM.AddShardedCluster(s.Project, "orders", 4)
	repeats := `{"errorCode":"X_` + rightKey + `","detail":"your key is ` + rightKey + `, and the agent's ` + wrongKey + `","error":403}`
	s.OM.Inject(simulator.PutCut(cluster.ShardIDs[0], simulator.ApplyBefore))
	s.OM.Inject(simulator.RateLimited(http.MethodPut, cluster.ShardIDs[1], "1"))
	s.OM.Inject(simulator.Fault{Method: http.MethodPut, ClusterID: cluster.ShardIDs[2], Status: 403, Body: strings.ReplaceAll(repeats, wrongKey, "x"), Apply: simulator.ApplyNo})
	s.OM.Inject(simulator.Fault{Method: http.MethodGet, Kind: simulator.KindKey, ClusterID: cluster.ConfigID, Status: 200, Body: "<title>" + rightKey + "</title>", ContentType: "text/html", Skip: 1, Times: simulator.Forever})
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, strings.ReplaceAll(repeats, wrongKey, "x"))
	}))
	defer echo.Close()
	receiver := eventreceiver.Start(t, "whsec_"+eventsSecret)
	repeatsEvents := strings.Join([]string{eventsKey, eventsSecret, eventsPath, eventsQuery}, " ")
	answers := []eventreceiver.Answer{
		{Raw: repeatsEvents + "\r\n\r\n", Times: 1},
		{Status: http.StatusTemporaryRedirect, Header: map[string]string{"Location": "https://" + eventsUser + ":" + eventsPassword + "@127.0.0.1/" + eventsPath}, Times: 1},
		{Status: http.StatusBadRequest, Body: repeatsEvents, Header: map[string]string{"Retry-After": repeatsEvents}},
	}
	receiver.AnswerWith(answers...)
	worker := startWorker(s, echo.URL, receiver.URL)
	found := visible{}

	input := s.Input(cluster.ID)
	input.OnFailure = workflows.OnFailureHold
	run := s.Start(input)
	s.Await(run.GetID(), func(p workflows.Progress) bool { return p.Phase == workflows.PhaseHeld })
	found["the progress query"] = []byte(s.CLI("workflow", "query", "-w", run.GetID(), "--type", "progress"))
	found["the current details"] = []byte(s.CLI("workflow", "metadata", "-w", run.GetID(), "-o", "json"))
	found["the stack trace query"] = []byte(s.CLI("workflow", "stack", "-w", run.GetID()))
	_, err := s.Update(run.GetID(), workflows.SkipUpdate, workflows.SkipRequest{By: "lee", Targets: []string{"orders-2"}})
	require.NoError(t, err)
	s.Await(run.GetID(), func(p workflows.Progress) bool {
		return p.Phase == workflows.PhaseHeld && strings.Contains(p.WaitingFor, "orders-config")
	})
	_, err = s.Update(run.GetID(), workflows.AbortUpdate, workflows.OperatorRequest{By: "lee"})
	require.NoError(t, err)
	_, err = s.Result(run)
	require.Error(t, err)
	found["the failure"] = []byte(err.Error())

	refused := s.Input(cluster.ID)
	refused.Connection = "wrong"
	second := s.StartAs(workflows.RotateClusterID("wrong", s.Project, cluster.ID), refused)
	_, err = s.Result(second)
	require.ErrorContains(t, err, "Unauthorized")
	found["the other failure"] = []byte(err.Error())

	for _, event := range s.History(run) {
		data, err := proto.Marshal(event)
		require.NoError(t, err)
		found["the history"] = append(found["the history"], data...)
	}
	for _, event := range s.History(second) {
		data, err := proto.Marshal(event)
		require.NoError(t, err)
		found["the other history"] = append(found["the other history"], data...)
	}
	undelivered := sendEvent(s, "refused")
	waiting.Until(t, func() bool { return len(receiver.Received()) > len(answers) })
	waiting.Until(t, func() bool {
		found["the event that is retried"] = []byte(s.CLI("workflow", "describe", "-w", undelivered.GetID()))
		return strings.Contains(string(found["the event that is retried"]), "400 Bad Request")
	})
	found["/readyz with an event that is retried"] = worker.get(t, "/readyz")
	require.Contains(t, string(found["/readyz with an event that is retried"]), "400 Bad Request", "the event is not delivered")
	receiver.AnswerWith()
	require.NoError(t, undelivered.Get(t.Context(), nil))
	for _, event := range s.History(undelivered) {
		data, err := proto.Marshal(event)
		require.NoError(t, err)
		found["the history of the event"] = append(found["the history of the event"], data...)
	}
	require.NotEmpty(t, receiver.Accepted())
	found["the event"] = receiver.Accepted()["refused"].Body
	receiver.AnswerWith(eventreceiver.Answer{Hang: true})
	sendEvent(s, "unanswered")
	waiting.Until(t, func() bool { return receiver.Received()[len(receiver.Received())-1].Event.ID() == "unanswered" })

	for _, page := range []string{"metrics", "healthz", "readyz"} {
		found["/"+page] = worker.get(t, "/"+page)
	}
	found["worker health"] = worker.health(t)
	require.Contains(t, string(found["/readyz"]), "[private key]", "Ops Manager must have repeated the key")
	found["ps"] = worker.commandLine(t)
	found["the log and the crash"] = worker.crash(t)
	require.Contains(t, string(found["the log and the crash"]), "goroutine ", "the worker must have crashed")
	found.requireClean(t)
}

// A worker whose receiver of events has credentials in its URL, or whose secret is in
// the wrong place, does not start, and does not repeat them.
func TestSecretsOfEventsInTheWrongPlaceAppearNowhere(t *testing.T) {
	binary, folder := programs.Build(t, "./worker"), t.TempDir()
	file := filepath.Join(folder, "secret")
	require.NoError(t, os.WriteFile(file, []byte(eventsKey+"\n"), 0o600))
	found := visible{}
	for name, settings := range map[string][]string{
		"user and password":    {"KEYTURN_EVENTS_URL=https://" + eventsUser + ":" + eventsPassword + "@127.0.0.1/" + eventsPath + "?" + eventsQuery},
		"an escape":            {"KEYTURN_EVENTS_URL=https://127.0.0.1/" + eventsPath + "%?" + eventsQuery},
		"plain http":           {"KEYTURN_EVENTS_URL=http://127.0.0.1/" + eventsPath + "?" + eventsQuery},
		"secret in the URL":    {"KEYTURN_EVENTS_URL=whsec_" + eventsSecret},
		"secret for its file":  {"KEYTURN_EVENTS_URL=https://127.0.0.1/" + eventsPath, "KEYTURN_EVENTS_SECRET_FILE=whsec_" + eventsSecret},
		"secret in no base64":  {"KEYTURN_EVENTS_URL=https://127.0.0.1/" + eventsPath, "KEYTURN_EVENTS_SECRET_FILE=" + file},
		"password of the site": {"KEYTURN_EVENTS_URL=https://127.0.0.1/", "KEYTURN_WEB_UI_URL=https://" + eventsUser + ":" + eventsPassword + "@ui"},
	} {
		command := exec.Command(binary)
		command.Env = append([]string{
			"HOME=" + folder, "OPS_MANAGER_URL=https://127.0.0.1", "OPS_MANAGER_PUBLIC_KEY=" + simulator.DefaultPublicKey, "OPS_MANAGER_PRIVATE_KEY=" + rightKey,
		}, settings...)
		out, err := command.CombinedOutput()
		require.Error(t, err, name)
		require.Regexp(t, "^keyturn-worker: KEYTURN_(EVENTS|WEB_UI)_", string(out), name)
		found[name] = out
	}
	found.requireClean(t)
}

func sendEvent(s fixture.Server, id string) client.WorkflowRun {
	return s.StartSending(activities.SendEventInput{
		ID: id, Type: activities.EventRotationHeld, Time: time.Now(), Subject: "cluster", WorkflowID: "rotation", RunID: "run", Data: []byte("{}"),
	}, 30*time.Second)
}

// process is a worker process, which can crash.
type process struct {
	command *exec.Cmd
	address string // serves health and metrics
	output  bytes.Buffer
}

func startWorker(s fixture.Server, echo, receiver string) *process {
	s.Helper()
	folder := s.TempDir()
	binary := programs.Build(s, "./worker")
	keyFile, connections, eventsFile := filepath.Join(folder, "key"), filepath.Join(folder, "connections.toml"), filepath.Join(folder, "events")
	require.NoError(s, os.WriteFile(eventsFile, []byte("whsec_"+eventsSecret+"\n"), 0o600))
	require.NoError(s, os.WriteFile(keyFile, []byte(rightKey+"\n"), 0o600))
	require.NoError(s, os.WriteFile(connections, []byte(`[connections.wrong]
url = "`+s.OM.URL+`"
public_key = "`+simulator.DefaultPublicKey+`"
private_key = "`+wrongKey+`"
[connections.echo]
url = "`+echo+`"
public_key = "`+simulator.DefaultPublicKey+`"
private_key = "`+rightKey+`"
`), 0o600))
	port, err := freeport.Choose()
	require.NoError(s, err)
	p := &process{command: exec.Command(binary), address: freeport.Address(port)}
	p.command.Env = []string{
		"HOME=" + folder, "GOTRACEBACK=all",
		"TEMPORAL_ADDRESS=" + s.TemporalServer.Address, "TEMPORAL_NAMESPACE=" + s.TemporalServer.Namespace,
		"KEYTURN_LISTEN=" + p.address, "KEYTURN_LOG_LEVEL=debug", "KEYTURN_LOG_FORMAT=json",
		"KEYTURN_TASK_QUEUE=" + s.TaskQueue, "KEYTURN_CONNECTIONS_FILE=" + connections,
		"OPS_MANAGER_URL=" + s.OM.URL, "OPS_MANAGER_PUBLIC_KEY=" + simulator.DefaultPublicKey, "OPS_MANAGER_PRIVATE_KEY_FILE=" + keyFile,
		"KEYTURN_EVENTS_URL=" + receiver + "/" + eventsPath + "?token=" + eventsQuery, "KEYTURN_EVENTS_ALLOW_HTTP=true", "KEYTURN_EVENTS_SECRET_FILE=" + eventsFile,
	}
	p.command.Stdout, p.command.Stderr = &p.output, &p.output
	require.NoError(s, p.command.Start())
	s.Cleanup(func() {
		_ = p.command.Process.Kill()
		_ = p.command.Wait()
	})
	return p
}

// get reads a page of the worker.
func (p *process) get(t *testing.T, path string) []byte {
	t.Helper()
	answer, err := http.Get("http://" + p.address + path)
	require.NoError(t, err)
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return body
}

// health runs the worker's health command, which must report that the worker is
// not ready.
func (p *process) health(t *testing.T) []byte {
	t.Helper()
	command := exec.Command(p.command.Path, "health")
	command.Env = p.command.Env
	out, err := command.CombinedOutput()
	require.Error(t, err)
	return out
}

func (p *process) commandLine(t *testing.T) []byte {
	t.Helper()
	out, err := exec.Command("ps", "-ww", "-o", "args=", "-p", strconv.Itoa(p.command.Process.Pid)).Output()
	require.NoError(t, err, "ps is needed")
	return out
}

// crash makes the worker dump all goroutines, and returns its output.
func (p *process) crash(t *testing.T) []byte {
	t.Helper()
	require.NoError(t, p.command.Process.Signal(syscall.SIGQUIT))
	require.Error(t, p.command.Wait())
	return p.output.Bytes()
}
