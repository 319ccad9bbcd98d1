package activities_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/activities"
)

func TestEveryErrorTypeHasItsLabel(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	require.NoError(t, err)
	var types []string
	ast.Inspect(file, func(node ast.Node) bool {
		spec, isValue := node.(*ast.ValueSpec)
		if !isValue || !strings.HasPrefix(spec.Names[0].Name, "Error") {
			return true
		}
		text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		require.NoError(t, err)
		types = append(types, text)
		return true
	})
	assert.ElementsMatch(t, types, activities.ErrorTypes)
	for _, errorType := range types {
		assert.Equal(t, errorType, activities.LabelOf(errorType))
	}
	assert.Equal(t, activities.OtherError, activities.LabelOf("SomebodyElses"))
}
