package workflows_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"keyturn/workflows"
)

// The message of a skipped target has its failure, which is named only once.
func TestRemarkOfASkippedTargetHasItsFailureOnce(t *testing.T) {
	t.Parallel()
	skipped := workflows.TargetRecord{
		Status:     workflows.StatusSkipped,
		Error:      &workflows.TargetError{Type: "Skipped", Message: "skipped by lee (it had failed: Forbidden: 403)"},
		FirstError: &workflows.TargetError{Type: workflows.ErrorForbidden, Message: "403"},
	}
	assert.Equal(t, "Skipped: skipped by lee (it had failed: Forbidden: 403)", skipped.Remark())
	skipped.FirstError.Message = "another one"
	assert.Equal(t, "Skipped: skipped by lee (it had failed: Forbidden: 403); failed first: Forbidden: another one", skipped.Remark())
}
