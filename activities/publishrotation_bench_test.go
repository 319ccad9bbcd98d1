package activities_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/log"
	sdktestsuite "go.temporal.io/sdk/testsuite"

	"keyturn/activities"
	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
)

// documentServer has one configuration, and keeps what is sent instead: without a
// simulator's ledger, so that the figures are the activity's.
type documentServer struct {
	mu      sync.Mutex
	text    []byte
	version int
}

var versionField = regexp.MustCompile(`"version":\d+`)

func (s *documentServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodGet {
		w.Header().Set("Content-Length", strconv.Itoa(len(s.text)))
		_, _ = w.Write(s.text)
		return
	}
	body := bytes.NewBuffer(make([]byte, 0, int(r.ContentLength)+bytes.MinRead))
	_, _ = io.Copy(body, r.Body)
	s.version++
	at := versionField.FindIndex(body.Bytes())
	s.text = append(body.Bytes()[:at[0]:at[0]], append([]byte(`"version":`+strconv.Itoa(s.version)), body.Bytes()[at[1]:]...)...)
	_, _ = io.WriteString(w, "{}")
}

// BenchmarkPublishRotation publishes a time in a document of 3 MB: three GETs and one
// PUT. B/op includes twice the document for the server. grown-MB is how much memory the
// process has taken from the system meanwhile, that of the server included.
func BenchmarkPublishRotation(b *testing.B) {
	d := deploy(b, simulator.DeploymentOptions{DocumentSize: 3 << 20}, simulator.Options{})
	names := d.Members("orders-0")
	server := &documentServer{text: []byte(d.Text()), version: int(d.Version())}
	served := httptest.NewServer(server)
	defer served.Close()
	client, err := opsmanager.New(opsmanager.Config{BaseURL: served.URL, PublicKey: simulator.DefaultPublicKey, PrivateKey: simulator.DefaultPrivateKey})
	require.NoError(b, err)
	var suite sdktestsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	activities.Register(env, &activities.Activities{
		Connections: map[string]*opsmanager.Client{"default": client},
		Heartbeat:   func(context.Context, []byte, any) error { return nil },
	})
	in := activities.PublishRotationInput{Scope: scope(), RotateAt: now()}
	in.Processes = publishInput(d, "orders-0", now()).Processes
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.SetBytes(int64(len(server.text)))
	b.ReportAllocs()
	for b.Loop() {
		value, err := env.ExecuteActivity(activities.PublishRotationName, in)
		require.NoError(b, err)
		var published activities.PublishRotationResult
		require.NoError(b, value.Get(&published))
		require.False(b, published.AlreadyPublished)
		previous := opsmanager.RotationTime(in.RotateAt)
		in.RotateAt = in.RotateAt.Add(time.Second)
		for i := range names {
			in.Processes[i].PreviousRotateAt = previous
		}
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.Sys-before.Sys)/(1<<20), "grown-MB")
}
