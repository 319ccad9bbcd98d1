package version

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Both programs tell the version that their build was told.
func TestBuildIsToldTheVersion(t *testing.T) {
	folder := t.TempDir()
	built, err := exec.Command("go", "build", "-ldflags", "-X keyturn/internal/version.linked=v1.2.3-trial", "-o", folder, "keyturn/worker", "keyturn/starter").CombinedOutput()
	require.NoError(t, err, "%s", built)
	for _, program := range []string{"worker", "starter"} {
		said, err := exec.Command(filepath.Join(folder, program), "--version").Output()
		require.NoError(t, err)
		assert.Equal(t, program+" version v1.2.3-trial\n", string(said))
	}
}
