package workflows_test

import (
	"testing"

	"keyturn/testsuite/support/parallel"
)

func TestMain(m *testing.M) { parallel.Main(m, 8) }
