package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/kmipevidence"
	"keyturn/testsuite/support/kmipsimulator"
	"keyturn/testsuite/support/pykmip"
)

// The keys of the clusters, and those of rotations, are made in the KMIP server.
// A rotation fails while that is not possible.
func TestKeysAreMadeInAKMIPServer(t *testing.T) {
	kmip := kmipsimulator.StartForTest(t, kmipsimulator.Options{})
	ca, certificate, key, err := kmip.WriteClient(t.TempDir(), "ops-manager")
	require.NoError(t, err)
	p := runProgram(t, "--shards", "1", "--kmip-address", kmip.Address(), "--kmip-ca", ca, "--kmip-cert", certificate, "--kmip-key", key)
	assert.Contains(t, p.runPrintedCall(t), "201 Created")
	client := kmip.EvidenceClient(t, "keyturn")
	targets := p.summary(t).Targets
	require.Len(t, targets, 2)
	require.Len(t, targets[0].Rotations, 1)
	for _, id := range []string{targets[0].Key, targets[0].Rotations[0].PreviousKey, targets[1].Key} {
		evidence := client.Ask(t.Context(), id)
		assert.Equal(t, kmipevidence.OutcomeWitnessed, evidence.Outcome, evidence.Message)
		assert.Equal(t, kmipevidence.StateActive, evidence.State)
	}

	kmip.Close()
	assert.Contains(t, p.runPrintedCall(t), "500 Internal Server Error")
	assert.Len(t, p.summary(t).Targets[0].Rotations, 1)
}

// The same with a KMIP server that has nothing in common with keyturn.
func TestKeysAreMadeInPyKMIP(t *testing.T) {
	server := pykmip.StartForTest(t)
	certificate, key, err := server.ClientFiles("mongod")
	require.NoError(t, err)
	p := runProgram(t, "--shards", "0", "--deployment-clusters", "1", "--deployment-shards", "0", "--deployment-members", "2", "--deployment-member-time", "10ms",
		"--kmip-address", server.Address(), "--kmip-ca", server.CAFile(), "--kmip-cert", certificate, "--kmip-key", key)
	assert.Contains(t, p.runPrintedCall(t), "201 Created")
	client, err := kmipevidence.New(kmipevidence.Config{Address: server.Address(), CAFile: server.CAFile(), ClientCertFile: certificate, ClientKeyFile: key})
	require.NoError(t, err)
	defer client.Close()
	witnessed := func(key string) time.Time {
		evidence := client.Ask(t.Context(), key)
		assert.Equal(t, kmipevidence.OutcomeWitnessed, evidence.Outcome, evidence.Message)
		assert.Equal(t, kmipevidence.StateActive, evidence.State)
		require.NotNil(t, evidence.InitialDate)
		return *evidence.InitialDate
	}
	witnessed(p.summary(t).Targets[0].Key)

	// So are those of a deployment's processes, and made when they are rotated.
	at := time.Now().Truncate(time.Second)
	publishRotation(t, p, "payments-0", at)
	require.Eventually(t, func() bool { return len(p.summary(t).Deployments[0].Processes[0].Rotations) == 1 }, 10*time.Second, 10*time.Millisecond)
	processes := p.summary(t).Deployments[0].Processes
	witnessed(processes[1].Key)
	witnessed(processes[0].Rotations[0].PreviousKey)
	assert.False(t, witnessed(processes[0].Key).Before(at))
}

func TestWrongKMIPFlags(t *testing.T) {
	kmip := kmipsimulator.StartForTest(t, kmipsimulator.Options{})
	ca, certificate, key, err := kmip.WriteClient(t.TempDir(), "ops-manager")
	require.NoError(t, err)
	for want, s := range map[string]kmipSettings{
		"--kmip-address": {address: "kmip", ca: ca, cert: certificate, key: key},
		"--kmip-ca":      {address: kmip.Address(), ca: "missing", cert: certificate, key: key},
		"--kmip-key":     {address: kmip.Address(), ca: ca, cert: certificate, key: "missing"},
	} {
		_, err := s.newKey(t.Context())
		assert.ErrorContains(t, err, want)
	}
	kmip.Close()
	_, err = (&kmipSettings{address: kmip.Address(), ca: ca, cert: certificate, key: key}).newKey(t.Context())
	assert.ErrorContains(t, err, "--kmip-address: connecting to the KMIP server: ")
}
