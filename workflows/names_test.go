package workflows_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"keyturn/workflows"
)

func TestRotateClusterIDIsTakenApart(t *testing.T) {
	t.Parallel()
	const project, cluster = "5196d3628d022db4cbc26d9e", "65a1f1aa0000000000000001"
	connection, p, c, ok := workflows.ParseRotateClusterID(workflows.RotateClusterID("emea", project, cluster))
	assert.True(t, ok)
	assert.Equal(t, []string{"emea", project, cluster}, []string{connection, p, c})
	for _, id := range []string{
		"", "mine", "scheduled-rotate-cluster:default:" + project + ":" + cluster, "rotate-cluster:default:" + project,
		"rotate-cluster:default:" + project + ":" + cluster + ":x", "rotate-cluster:default:" + project + ":65A1F1AA0000000000000001",
		"rotate-cluster:default:x:" + cluster,
	} {
		_, _, _, ok := workflows.ParseRotateClusterID(id)
		assert.False(t, ok, id)
	}
}
