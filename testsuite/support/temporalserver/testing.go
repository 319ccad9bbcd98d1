package temporalserver

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
)

// shared is set by [Main] before the first test runs.
var shared struct {
	executable string
	server     *Server
	postgresql *postgresqlStore // nil = the development server
}

var (
	// address selects another server than the development server.
	address = flag.String("temporal", "", "run the tests on the Temporal server at this `address`, or on Temporal's own server with PostgreSQL and 512 history shards (postgresql)")
	// namespace on that server.
	namespace = flag.String("temporal-namespace", defaultNamespace, "existing namespace of the server at -temporal")
)

// onPostgreSQL is the value of -temporal for Temporal's own server.
const onPostgreSQL = "postgresql"

// Main is the TestMain of a package whose tests need a server: it finds,
// downloads or builds the executable, starts one server, runs the tests, stops the server
// and exits.
//
// The first build of the tool can take longer than the test timeout. Main then
// exits before the timeout and asks to run the tests again; the build continues
// in the background. If the server cannot be started, the package fails.
func Main(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if !flag.Parsed() {
		flag.Parse()
	}
	if err := prepare(); err != nil {
		if errors.Is(err, ErrNotReady) {
			err = fmt.Errorf("%w; run the tests again", err)
		}
		fmt.Fprintf(os.Stderr, "FAIL: these tests need a Temporal server: %v\n", err)
		return 1
	}
	code := m.Run()
	shared.server.Stop()
	if shared.postgresql != nil {
		if err := shared.postgresql.close(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL: stopping PostgreSQL:", err)
			return 1
		}
	}
	return code
}

func prepare() error {
	ctx, cancel := preparationContext()
	defer cancel()
	var err error
	if shared.executable, err = Executable(ctx, func(line string) { fmt.Fprintln(os.Stderr, line) }); err != nil {
		return err
	}
	switch *address {
	case "":
	case onPostgreSQL:
		if shared.postgresql, err = openPostgreSQL(ctx); err != nil {
			return err
		}
	default:
		shared.server, err = attach(ctx, shared.executable, *address, *namespace)
		return err
	}
	options := Options{Executable: shared.executable, postgresql: shared.postgresql}
	if shared.postgresql == nil {
		options.DynamicConfig = promptDeletion
	}
	shared.server, err = Start(ctx, options)
	return err
}

// promptDeletion: a workflow is deleted only once Temporal has stored that the tasks
// of its end are done, which it does every 30 seconds by default. The 512 shards of
// the server on PostgreSQL would store it far too often.
var promptDeletion = map[string]string{
	"history.transferProcessorUpdateAckInterval":   `"1s"`,
	"history.visibilityProcessorUpdateAckInterval": `"1s"`,
}

// preparationContext ends after nine tenths of the test timeout (10 minutes by
// default): shortly after the timeout, the go command kills the test binary.
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

// Shared returns the server that [Main] started. Each test must use its own
// task queue and workflow IDs.
func Shared(t testing.TB) *Server {
	t.Helper()
	require.NotNil(t, shared.server, "this test needs a Temporal server: the package's TestMain must call temporalserver.Main")
	return shared.server
}

// StartForTest starts a server for one test and stops it when the test ends. If
// the test has failed, it logs the last lines of the server's log. With the flag
// -temporal ADDRESS, it skips the test.
func StartForTest(t testing.TB, options Options) *Server {
	t.Helper()
	if shared.server != nil && shared.server.attached {
		t.Skipf("this test needs a Temporal server of its own, which it configures or stops, not the one at %s", shared.server.Address)
	}
	if options.postgresql == nil {
		options.postgresql = shared.postgresql
	}
	if options.Executable == "" {
		options.Executable = shared.executable
	}
	server, err := Start(t.Context(), options)
	require.NoError(t, err, "this test needs a Temporal server")
	t.Cleanup(func() {
		server.Stop()
		if t.Failed() {
			t.Logf("last log lines of the Temporal server:\n%s", server.LastLines())
		}
	})
	return server
}

// NewClient returns a client for the server's namespace that logs nothing and
// is closed when the test ends.
func (s *Server) NewClient(t testing.TB) client.Client {
	t.Helper()
	temporal, err := s.Dial(t.Context())
	require.NoError(t, err, "connecting to the Temporal server; its last log lines:\n%s", s.LastLines())
	t.Cleanup(temporal.Close)
	return temporal
}
