package kmipevidence_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/kmipevidence"
	"keyturn/internal/setting"
	"keyturn/testsuite/support/pykmip"
	"keyturn/testsuite/support/testca"
)

// owner is the client that makes the keys, as mongod's certificate would.
const owner = "mongod"

// configFor is that of a client of the server.
func configFor(t testing.TB, server *pykmip.Server, client string, adjust ...func(*x509.Certificate)) kmipevidence.Config {
	t.Helper()
	certificate, key, err := server.ClientFiles(client, adjust...)
	require.NoError(t, err)
	return kmipevidence.Config{Address: server.Address(), CAFile: server.CAFile(), ClientCertFile: certificate, ClientKeyFile: key, Timeout: time.Minute}
}

func newClient(t testing.TB, config kmipevidence.Config) *kmipevidence.Client {
	t.Helper()
	client, err := kmipevidence.New(config)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

// TestPyKMIP is about what an independent KMIP server says in each state of a
// key. One server serves all cases: a start takes seconds.
func TestPyKMIP(t *testing.T) {
	server := pykmip.StartForTest(t)
	maker := server.KeyMakerForTest(t, owner)
	client := newClient(t, configFor(t, server, owner))
	ctx := t.Context()
	begun := time.Now().Truncate(time.Second)

	makeKey := func(t *testing.T, name string, changes ...func(context.Context, string) error) string {
		t.Helper()
		id, err := maker.Create(ctx, name)
		require.NoError(t, err)
		for _, change := range changes {
			require.NoError(t, change(ctx, id))
		}
		return id
	}

	t.Run("a client that sees no key at all cannot say that one is absent", func(t *testing.T) {
		evidence := client.Ask(ctx, "12345")
		assert.Equal(t, kmipevidence.OutcomeForbidden, evidence.Outcome)
		assert.Contains(t, evidence.Message, "shows this client no key at all")
	})
	for state, changes := range map[string][]func(context.Context, string) error{
		kmipevidence.StatePreActive:   nil,
		kmipevidence.StateActive:      {maker.Activate},
		kmipevidence.StateDeactivated: {maker.Activate, maker.Deactivate},
		kmipevidence.StateCompromised: {maker.Activate, maker.Compromise},
	} {
		t.Run(state, func(t *testing.T) {
			evidence := client.Ask(ctx, makeKey(t, "key "+state, changes...))
			require.Equal(t, kmipevidence.OutcomeWitnessed, evidence.Outcome, evidence.Message)
			assert.Equal(t, state, evidence.State)
			assert.Equal(t, "AES", evidence.Algorithm)
			assert.Equal(t, 256, evidence.Length)
			assert.Equal(t, "key "+state, evidence.Name)
			require.NotNil(t, evidence.InitialDate)
			assert.False(t, evidence.InitialDate.Before(begun), "made at %s, before the test began at %s", evidence.InitialDate, begun)
			assert.False(t, evidence.InitialDate.After(evidence.AskedAt))
			assert.Nil(t, evidence.ActivationDate, "pykmip keeps none")
			assert.Empty(t, evidence.Message)

			content, err := json.Marshal(evidence)
			require.NoError(t, err)
			var fields map[string]any
			require.NoError(t, json.Unmarshal(content, &fields))
			assert.Equal(t, evidence.InitialDate.Format(time.RFC3339), fields["initialDate"])
			assert.Equal(t, evidence.AskedAt.Format(time.RFC3339Nano), fields["askedAt"])
			assert.NotContains(t, fields, "activationDate")
			assert.NotContains(t, string(content), "essage")
		})
	}
	t.Run("a key without a name", func(t *testing.T) {
		evidence := client.Ask(ctx, makeKey(t, ""))
		assert.Equal(t, kmipevidence.OutcomeWitnessed, evidence.Outcome, evidence.Message)
		assert.Empty(t, evidence.Name)
	})
	t.Run("destroyed", func(t *testing.T) {
		evidence := client.Ask(ctx, makeKey(t, "destroyed", maker.Destroy))
		assert.Equal(t, kmipevidence.OutcomeAbsent, evidence.Outcome)
		assert.Contains(t, evidence.Message, "ItemNotFound")
		assert.Empty(t, evidence.State)
	})
	t.Run("never there, and the name of another key", func(t *testing.T) {
		makeKey(t, "no-such-id")
		assert.Equal(t, kmipevidence.OutcomeAbsent, client.Ask(ctx, "no-such-id").Outcome)
	})
	t.Run("no id", func(t *testing.T) {
		assert.Equal(t, kmipevidence.OutcomeUnreachable, client.Ask(ctx, "").Outcome)
	})
	t.Run("key of another client", func(t *testing.T) {
		id := makeKey(t, "mine")
		evidence := newClient(t, configFor(t, server, "keyturn")).Ask(ctx, id)
		assert.Equal(t, kmipevidence.OutcomeForbidden, evidence.Outcome)
		assert.Contains(t, evidence.Message, "PermissionDenied")
	})
	t.Run("check", func(t *testing.T) {
		assert.NoError(t, client.Check(ctx))
	})
	t.Run("many at a time", func(t *testing.T) {
		var ids []string
		for range 5 {
			ids = append(ids, makeKey(t, "many"))
		}
		var group sync.WaitGroup
		for i := range 50 {
			group.Go(func() {
				evidence := client.Ask(ctx, ids[i%len(ids)])
				assert.Equal(t, kmipevidence.OutcomeWitnessed, evidence.Outcome, evidence.Message)
			})
		}
		group.Wait()
	})
	t.Run("another CA", func(t *testing.T) {
		config := configFor(t, server, owner)
		config.CAFile = filepath.Join(t.TempDir(), "ca.pem")
		require.NoError(t, os.WriteFile(config.CAFile, testca.New(t, "another").PEM, 0o600))
		requireUnreachable(t, config, kmipevidence.SettingCAFile)
	})
	t.Run("another server name", func(t *testing.T) {
		config := configFor(t, server, owner)
		config.ServerName = "kmip.example.com"
		requireUnreachable(t, config, kmipevidence.SettingServerName)
	})
	t.Run("client certificate of another CA", func(t *testing.T) {
		config := configFor(t, server, owner)
		config.ClientCertFile, config.ClientKeyFile = writePair(t, testca.New(t, "another"))
		requireUnreachable(t, config, kmipevidence.SettingClientCertFile)
	})
	t.Run("no client certificate", func(t *testing.T) {
		config := configFor(t, server, owner)
		config.ClientCertFile, config.ClientKeyFile = "", ""
		requireUnreachable(t, config, kmipevidence.SettingClientCertFile)
	})
	t.Run("client certificate that is not for clients", func(t *testing.T) {
		refused := newClient(t, configFor(t, server, "server-only", func(template *x509.Certificate) { template.ExtKeyUsage = nil }))
		evidence := refused.Ask(ctx, "1")
		assert.Equal(t, kmipevidence.OutcomeForbidden, evidence.Outcome)
		assert.Contains(t, evidence.Message, kmipevidence.SettingClientCertFile+": the KMIP server does not accept the client certificate")
		assert.ErrorContains(t, refused.Check(ctx), "clientAuth")
	})
	t.Run("new client certificate", func(t *testing.T) {
		id := makeKey(t, "mine")
		config := configFor(t, server, "someone")
		replaced := newClient(t, config)
		kmipevidence.RereadAtEachCall(replaced)
		require.Equal(t, kmipevidence.OutcomeForbidden, replaced.Ask(ctx, id).Outcome)
		certificate, key, err := server.ClientFiles(owner)
		require.NoError(t, err)
		copyFile(t, certificate, config.ClientCertFile)
		assert.ErrorContains(t, replaced.Check(ctx), kmipevidence.SettingClientKeyFile, "only one file of the pair is replaced")
		require.Equal(t, kmipevidence.OutcomeForbidden, replaced.Ask(ctx, id).Outcome)
		copyFile(t, key, config.ClientKeyFile)
		assert.Equal(t, kmipevidence.OutcomeWitnessed, replaced.Ask(ctx, id).Outcome)
		assert.NoError(t, replaced.Check(ctx))
	})

	// The last cases, as they disturb the server.
	t.Run("hanging", func(t *testing.T) {
		id := makeKey(t, "hanging")
		config := configFor(t, server, owner)
		config.Timeout = 200 * time.Millisecond
		client := newClient(t, config)
		require.NoError(t, server.Hang())
		evidence := client.Ask(ctx, id)
		assert.Equal(t, kmipevidence.OutcomeUnreachable, evidence.Outcome)
		assert.Contains(t, evidence.Message, kmipevidence.SettingAddress+": the KMIP server gave no answer")
		assert.ErrorContains(t, client.Check(ctx), "no answer")
		require.NoError(t, server.Continue())
		assert.Equal(t, kmipevidence.OutcomeWitnessed, client.Ask(ctx, id).Outcome)
	})
	t.Run("down, and back with its keys", func(t *testing.T) {
		id := makeKey(t, "kept")
		require.Equal(t, kmipevidence.OutcomeWitnessed, client.Ask(ctx, id).Outcome)
		server.Stop()
		evidence := client.Ask(ctx, id)
		assert.Equal(t, kmipevidence.OutcomeUnreachable, evidence.Outcome)
		assert.Contains(t, evidence.Message, "connection refused")
		assert.ErrorContains(t, client.Check(ctx), kmipevidence.SettingAddress)
		require.NoError(t, server.Restart(ctx))
		assert.Equal(t, kmipevidence.OutcomeWitnessed, client.Ask(ctx, id).Outcome)
		assert.NoError(t, client.Check(ctx))
	})
}

// BenchmarkAsk measures what one key costs, with a real server on this machine.
func BenchmarkAsk(b *testing.B) {
	server := pykmip.StartForTest(b)
	id := server.MakeKey(b, owner, "benchmark")
	client := newClient(b, configFor(b, server, owner))
	ask := func() {
		if evidence := client.Ask(b.Context(), id); evidence.Outcome != kmipevidence.OutcomeWitnessed {
			b.Error(evidence.Message)
		}
	}
	b.Run("one at a time", func(b *testing.B) {
		for b.Loop() {
			ask()
		}
	})
	b.Run("concurrently", func(b *testing.B) {
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				ask()
			}
		})
	})
}

// requireUnreachable is about a configuration that is good in itself and does not
// fit the server.
func requireUnreachable(t *testing.T, config kmipevidence.Config, named string) {
	t.Helper()
	client := newClient(t, config)
	evidence := client.Ask(t.Context(), "1")
	assert.Equal(t, kmipevidence.OutcomeUnreachable, evidence.Outcome)
	assert.Contains(t, evidence.Message, named+": ")
	t.Log(evidence.Message)
	var fault *setting.Error
	require.ErrorAs(t, client.Check(t.Context()), &fault)
	assert.Equal(t, named, fault.Setting)
}

func writePair(t testing.TB, ca *testca.CA, adjust ...func(*x509.Certificate)) (certificateFile, keyFile string) {
	t.Helper()
	certificate, key := testca.PEM(t, ca.Issue(t, owner, adjust...))
	directory := t.TempDir()
	certificateFile, keyFile = filepath.Join(directory, "client.pem"), filepath.Join(directory, "client.key")
	require.NoError(t, os.WriteFile(certificateFile, certificate, 0o600))
	require.NoError(t, os.WriteFile(keyFile, key, 0o600))
	return certificateFile, keyFile
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, content, 0o600))
}
