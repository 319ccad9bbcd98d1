package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/setting"
)

func TestSettingsOfTheEnvironment(t *testing.T) {
	directory := t.TempDir()
	file := filepath.Join(directory, "file")
	require.NoError(t, os.WriteFile(file, []byte("s3cret"), 0o600))
	url := "sqlite://" + filepath.Join(directory, "ledger.db")
	for name, c := range map[string]struct {
		env     setting.Environment
		options Options
		setting string
	}{
		"no ledger":              {setting.Environment{}, Options{}, ""},
		"empty":                  {setting.Environment{URLVariable: ""}, Options{}, ""},
		"valid":                  {setting.Environment{URLVariable: url}, Options{}, ""},
		"password without URL":   {setting.Environment{PasswordFileVariable: file}, Options{}, PasswordFileVariable},
		"key without URL":        {setting.Environment{SigningKeyFileVariable: file}, Options{}, SigningKeyFileVariable},
		"another database":       {setting.Environment{URLVariable: "mysql://h/d"}, Options{}, URLVariable},
		"password in URL":        {setting.Environment{URLVariable: "postgres://k:s3cret@h/d"}, Options{}, URLVariable},
		"secret instead of file": {setting.Environment{URLVariable: "postgres://k@h/d", PasswordFileVariable: "s3cret"}, Options{}, PasswordFileVariable},
		"key instead of file":    {setting.Environment{URLVariable: url, SigningKeyFileVariable: "s3cret"}, Options{}, SigningKeyFileVariable},
		"wrong key":              {setting.Environment{URLVariable: url, SigningKeyFileVariable: file}, Options{}, SigningKeyFileVariable},
		"nothing to read":        {setting.Environment{URLVariable: url + "-missing"}, Options{ReadOnly: true}, URLVariable},
	} {
		t.Run(name, func(t *testing.T) {
			opened, err := OpenFromEnvironment(t.Context(), c.env, c.options)
			if c.setting == "" {
				require.NoError(t, err)
				assert.Equal(t, c.env[URLVariable] != "", opened != nil)
				if opened != nil {
					require.NoError(t, opened.Close())
				}
				return
			}
			var wrong *setting.Error
			require.True(t, errors.As(err, &wrong), "%v", err)
			assert.Equal(t, c.setting, wrong.Setting)
			assert.NotContains(t, err.Error(), "s3cret")
		})
	}
}
