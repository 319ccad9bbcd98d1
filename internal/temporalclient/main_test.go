package temporalclient_test

import (
	"testing"

	"keyturn/testsuite/support/temporalserver"
)

func TestMain(m *testing.M) { temporalserver.Main(m) }
