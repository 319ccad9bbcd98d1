package version

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Both programs report the version that their build was given.
func TestProgramsReportTheVersionOfTheBuild(t *testing.T) {
	folder := t.TempDir()
	built, err := exec.Command("go", "build", "-ldflags", "-w -X keyturn/internal/version.linked=v1.2.3-trial", "-o", folder, "keyturn/worker", "keyturn/starter").CombinedOutput()
	require.NoError(t, err, "%s", built)
	for folderName, program := range map[string]string{"worker": "keyturn-worker", "starter": "keyturn"} {
		said, err := exec.Command(filepath.Join(folder, folderName), "--version").Output()
		require.NoError(t, err)
		assert.Equal(t, program+" version v1.2.3-trial\n", string(said))
	}
}
