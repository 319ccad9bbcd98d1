package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"keyturn/testsuite/support/encryption"
	"keyturn/workflows"
)

// withCodec writes a temporal.toml with a codec server for the command line.
func (s *commandLine) withCodec(codecs ...converter.PayloadCodec) {
	s.T.Helper()
	server := httptest.NewServer(converter.NewPayloadCodecHTTPHandler(codecs...))
	s.T.Cleanup(server.Close)
	s.configFile = writeFile(s.T, "temporal.toml", fmt.Sprintf("[profile.default.codec]\nendpoint = %q\n", server.URL))
}

// The worker has no codec, and says so of each request that it cannot read.
func TestEncodedRequestsAreRefusedWithTheReason(t *testing.T) {
	const reason = `arrived with the encoding "binary/encrypted", which the worker cannot read`
	s := newFixture(t, 1)
	s.StartWorker()
	plain := s.configFile
	s.withCodec(encryption.Codec{})
	refused := s.keyturn("rotate", "--wait")
	assert.Equal(t, exitFailed, refused.code)
	assert.Contains(t, refused.stdout+refused.stderr, reason)
	assert.NotContains(t, refused.stdout+refused.stderr, "is required")
	encoded := s.configFile

	s.configFile = plain
	require.Equal(t, exitWaiting, s.keyturn("rotate", "--wait", "--require-approval").code)
	s.configFile = encoded
	for _, command := range []string{"approve", "pause", "abort"} {
		refused := s.keyturn(command, "--by", "lee")
		assert.Equal(t, exitFailed, refused.code, command)
		assert.Contains(t, refused.stderr, reason, command)
	}
	assert.Contains(t, s.keyturn("watch").stdout, "waiting for approval", "what is not encoded is read as before")
	s.configFile = plain
	require.Equal(t, exitDone, s.keyturn("abort", "--by", "lee").code)
}

// What Temporal has encoded, as behind a proxy that encrypts, is not taken for
// nothing: the command line names the setting that decodes it.
func TestEncodedRecordsAreReadWithTheCodecOnly(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(workflow.Context) error
		code int
		want string
	}{
		"result": {func(workflow.Context) error { return nil }, exitDone, "orders"},
		"failure": {func(workflow.Context) error {
			return temporal.NewApplicationError("not all", string(workflows.ErrorPartialFailure), encodedResult(workflows.OutcomePartial))
		}, exitDone, "orders"},
		"progress": {func(ctx workflow.Context) error {
			return workflow.Await(ctx, func() bool { return false })
		}, exitDone, "orders"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFixture(t, 1)
			s.Connection = "encoded-" + name
			s.TaskQueue = s.Connection
			encoding, err := client.Dial(encryption.Options(client.Options{HostPort: s.TemporalServer.Address, Namespace: s.TemporalServer.Namespace}))
			require.NoError(t, err)
			defer encoding.Close()
			worker := sdkworker.New(encoding, s.TaskQueue, sdkworker.Options{})
			worker.RegisterWorkflowWithOptions(func(ctx workflow.Context, _ converter.RawValue) (*workflows.RotateClusterResult, error) {
				err := workflow.SetQueryHandler(ctx, workflows.ProgressQuery, func() (workflows.Progress, error) {
					return workflows.Progress{RotateClusterResult: encodedResult(""), Phase: workflows.PhaseRotating}, nil
				})
				result := encodedResult(workflows.OutcomeRotated)
				return &result, cmp.Or(err, test.end(ctx))
			}, workflow.RegisterOptions{Name: workflows.RotateClusterType})
			require.NoError(t, worker.Start())
			defer worker.Stop()
			input := s.Input(s.cluster.ID)
			input.Connection = s.Connection
			run, err := encoding.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
				ID: workflows.RotateClusterID(s.Connection, s.cluster.ProjectID, s.cluster.ID), TaskQueue: s.TaskQueue,
			}, workflows.RotateClusterType, input)
			require.NoError(t, err)
			if name == "progress" {
				t.Cleanup(func() { _ = encoding.TerminateWorkflow(s.Context(), run.GetID(), "", "the test is over") })
			} else {
				_ = run.Get(t.Context(), nil)
			}

			const encoded = `TEMPORAL_CODEC_ENDPOINT: what Temporal has is encoded as "binary/encrypted": set this to the address of the codec server that decodes it`
			unread := s.keyturn("report")
			assert.Equal(t, exitFailed, unread.code, unread.stdout)
			assert.Contains(t, unread.stderr, encoded)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			watched := s.keyturnUntil(ctx, encoded, stop, "watch") // one of a rotation that has not ended tries again
			assert.Equal(t, exitFailed, watched.code, watched.stdout)
			assert.Contains(t, watched.stdout+watched.stderr, encoded)

			s.withCodec(encryption.Codec{})
			read := s.keyturn("report")
			assert.Equal(t, test.code, read.code, read.stderr)
			assert.Contains(t, read.stdout, test.want)

			s.withCodec() // one that does not have the key
			unread = s.keyturn("report")
			assert.Equal(t, exitFailed, unread.code)
			assert.Contains(t, unread.stderr, `TEMPORAL_CONFIG_FILE: profile.default.codec.endpoint: what Temporal has is encoded as "binary/encrypted": this codec server has not decoded it`)
		})
	}
}

func encodedResult(outcome workflows.Outcome) workflows.RotateClusterResult {
	return workflows.RotateClusterResult{
		Connection: workflows.DefaultConnection, ProjectID: testProject, ClusterID: testCluster, ClusterName: "orders", Outcome: outcome,
		Actions: []workflows.Action{}, Targets: []workflows.TargetRecord{},
	}
}
