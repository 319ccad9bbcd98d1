package randomized

import (
	"testing"

	"keyturn/testsuite/support/parallel"
)

// The seeds of deployments are parallel tests, which spend most of their time waiting.
func TestMain(m *testing.M) { parallel.Main(m, 16) }
