package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/kmipsimulator"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/testsuite/support/testca"
)

// warnsOfKMIP shows a worker that is ready with this warning; empty = with none.
func warnsOfKMIP(warning string) func(readiness) bool {
	return func(r readiness) bool {
		check, found := r.Checks["kmip.default"]
		return r.Ready && found && check.OK && strings.HasPrefix(check.Warning, warning) && (warning != "" || check.Warning == "")
	}
}

// A worker checks its KMIP server at the start and from then on. What is wrong is a
// warning that names the setting, and at no time makes the worker unready. The
// files are read again when they change.
func TestReadinessWarnsOfTheKMIPServer(t *testing.T) {
	t.Parallel()
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	kmip := kmipsimulator.StartForTest(t, kmipsimulator.Options{})
	ca, certificate, key, err := kmip.WriteClient(t.TempDir(), "keyturn")
	require.NoError(t, err)
	right := readText(t, ca)
	require.NoError(t, os.WriteFile(ca, testca.New(t, "foreign authority").PEM, 0o600))
	env := monitoredEnvironment(s)
	env["KMIP_ADDRESS"], env["KMIP_CA_FILE"], env["KMIP_CLIENT_CERT_FILE"], env["KMIP_CLIENT_KEY_FILE"] = kmip.Address(), ca, certificate, key
	w := startMonitored(t, env, oftenLooking)
	awaitReadiness(t, w.address, warnsOfKMIP("KMIP_CA_FILE: the KMIP server's certificate is signed by an authority that is not trusted"))
	waitForText(t, &w.log, "cannot ask the KMIP server")

	require.NoError(t, os.WriteFile(ca, []byte(right), 0o600))
	awaitReadiness(t, w.address, warnsOfKMIP(""))
	waitForText(t, &w.log, "the KMIP server answers")

	kmip.Close()
	awaitReadiness(t, w.address, warnsOfKMIP("KMIP_ADDRESS: "))
}
