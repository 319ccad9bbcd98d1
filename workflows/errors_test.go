package workflows

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
)

// errorTypeNames returns the names of the constants of an errors.go, and the
// names that its variable ErrorTypes lists.
func errorTypeNames(t *testing.T, file string) (constants, listed []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	require.NoError(t, err)
	ast.Inspect(parsed, func(node ast.Node) bool {
		declaration, isDeclaration := node.(*ast.GenDecl)
		if !isDeclaration {
			return true
		}
		for _, spec := range declaration.Specs {
			value, isValue := spec.(*ast.ValueSpec)
			switch {
			case !isValue:
			case declaration.Tok == token.CONST && strings.HasPrefix(value.Names[0].Name, "Error"):
				constants = append(constants, value.Names[0].Name)
			case value.Names[0].Name == "ErrorTypes":
				for _, element := range value.Values[0].(*ast.CompositeLit).Elts {
					listed = append(listed, element.(*ast.Ident).Name)
				}
			}
		}
		return false
	})
	return constants, listed
}

func TestErrorTypesAreComplete(t *testing.T) {
	t.Parallel()
	constants, listed := errorTypeNames(t, "errors.go")
	assert.ElementsMatch(t, constants, listed)
	ofActivities, _ := errorTypeNames(t, filepath.Join("..", "activities", "errors.go"))
	require.NotEmpty(t, ofActivities)
	assert.Subset(t, constants, ofActivities, "a caller needs package workflows alone")
}

func TestErrorTypeOf(t *testing.T) {
	t.Parallel()
	aborted := temporal.NewNonRetryableApplicationError("aborted by lee", string(ErrorAborted), nil)
	assert.Equal(t, ErrorAborted, ErrorTypeOf(errors.Join(errors.New("outer"), aborted)))
	assert.Empty(t, ErrorTypeOf(errors.New("connection lost")))
	assert.Empty(t, ErrorTypeOf(nil))
}

func TestErrorLabelHasKnownValuesOnly(t *testing.T) {
	t.Parallel()
	for _, errorType := range ErrorTypes {
		assert.Equal(t, string(errorType), errorLabel(errorType))
	}
	assert.Equal(t, ErrorLabelOther, errorLabel("FromAnotherTeam"))
	assert.Equal(t, ErrorLabelOther, errorLabelOf(errors.New("no application error")))
}
