package temporalserver

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
)

// shared is what [Main] gives to the tests of its package; it is set before the
// first of them runs.
var shared struct {
	executable string
	server     *Server
}

// Main is the TestMain of a package whose tests need a server: it finds or
// builds the executable, starts one server for the package's tests, runs them,
// stops the server and ends the program.
//
// The tool's first build can take longer than `go test` lets a package run. Main
// then ends, before it is killed, with a message to run the tests again; the
// build goes on in the background. A server that can't be had fails the package.
func Main(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if !flag.Parsed() {
		flag.Parse()
	}
	if err := prepare(); err != nil {
		if errors.Is(err, ErrStillBuilding) {
			err = fmt.Errorf("%w; run the tests again", err)
		}
		fmt.Fprintf(os.Stderr, "FAIL: these tests need a Temporal server: %v\n", err)
		return 1
	}
	defer shared.server.Stop()
	return m.Run()
}

func prepare() error {
	ctx, cancel := preparationContext()
	defer cancel()
	var err error
	if shared.executable, err = Executable(ctx, func(line string) { fmt.Fprintln(os.Stderr, line) }); err != nil {
		return err
	}
	shared.server, err = Start(ctx, Options{Executable: shared.executable})
	return err
}

// preparationContext leaves the last tenth of the time that `go test -timeout`
// gives (10 minutes if nobody says otherwise): the go command kills a test
// binary a little after that time, counted from the binary's start.
func preparationContext() (context.Context, context.CancelFunc) {
	limit := 10 * time.Minute
	if set := flag.Lookup("test.timeout"); set != nil {
		limit = set.Value.(flag.Getter).Get().(time.Duration)
	}
	if limit <= 0 {
		return context.WithCancel(context.Background())
	}
	return context.WithTimeout(context.Background(), limit/10*9)
}

// Shared returns the server that [Main] started for the package's tests. Each
// test must use a task queue and workflow ids of its own.
func Shared(t testing.TB) *Server {
	t.Helper()
	if shared.server == nil {
		t.Fatal("this test needs a Temporal server: the package's TestMain must call temporalserver.Main")
	}
	return shared.server
}

// StartForTest starts a server for one test, with the executable that [Main]
// found unless options name another, and stops it when the test ends. The last
// lines that the server wrote are logged if the test has failed.
func StartForTest(t testing.TB, options Options) *Server {
	t.Helper()
	if options.Executable == "" {
		options.Executable = shared.executable
	}
	server, err := Start(t.Context(), options)
	if err != nil {
		t.Fatalf("this test needs a Temporal server: %v", err)
	}
	t.Cleanup(func() {
		server.Stop()
		if t.Failed() {
			t.Logf("the Temporal server's last lines:\n%s", server.LastLines())
		}
	})
	return server
}

// NewClient returns a client of the server's namespace that logs nothing and is
// closed when the test ends.
func (s *Server) NewClient(t testing.TB) client.Client {
	t.Helper()
	temporal, err := s.Dial(t.Context())
	if err != nil {
		t.Fatalf("connecting to the Temporal server: %v; its last lines:\n%s", err, s.LastLines())
	}
	t.Cleanup(temporal.Close)
	return temporal
}
