package workflows

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"keyturn/opsmanager"
)

func TestNotServedNamesTheConnection(t *testing.T) {
	t.Parallel()
	version := opsmanager.ServiceVersion{Major: 8, Text: "8.0.6"}
	assert.ErrorContains(t, notServed(DefaultConnection, "5196d3628d022db4cbc26d9e", version), "with keyturn rotate --deployment --project 5196d3628d022db4cbc26d9e (workflow RotateDeployment)")
	assert.ErrorContains(t, notServed("emea", "5196d3628d022db4cbc26d9e", version), "--project 5196d3628d022db4cbc26d9e --connection emea (workflow")
}
