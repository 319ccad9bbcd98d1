// Package docs tests the documentation: the comments of what other teams import,
// and the links of what they read.
package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// documentedPackages are those whose exported names must all have a comment:
// callers import workflows, which has aliases of types of the others.
var documentedPackages = []string{"workflows", "activities", "opsmanager", "internal/kmipevidence", "internal/ledger", "internal/setting", "internal/temporalclient"}

func TestEveryExportedNameHasAComment(t *testing.T) {
	for _, name := range documentedPackages {
		t.Run(name, func(t *testing.T) {
			files, err := filepath.Glob(filepath.Join("..", "..", name, "*.go"))
			require.NoError(t, err)
			checked := 0
			for _, file := range files {
				if strings.HasSuffix(file, "_test.go") {
					continue
				}
				fileSet := token.NewFileSet()
				parsed, err := parser.ParseFile(fileSet, file, nil, parser.ParseComments|parser.SkipObjectResolution)
				require.NoError(t, err)
				for _, found := range exportedNames(parsed) {
					checked++
					assert.True(t, found.documented, "%s: %s has no comment: say what it is, and its unit, default and limit where it has them",
						fileSet.Position(found.at), found.name)
				}
			}
			require.NotZero(t, checked)
		})
	}
}

func TestUndocumentedNamesAreFound(t *testing.T) {
	const text = `package p

// T has a comment.
type T struct {
	// First and Second share one.
	First, Second int
	Third int
	// Fourth and Fifth, too.
	Fourth int
	Fifth int ` + "`json:\"fifth\"`" + `
	Sixth int // has one behind it
	unexported int
}

type U struct{}

// Constants.
const (
	A = 1 // has one
	B = 2
)

// C has one.
const C = 3

func (T) Method() {}
func (u) Method() {}
func F() {}
type u struct { Field int }
`
	parsed, err := parser.ParseFile(token.NewFileSet(), "p.go", text, parser.ParseComments)
	require.NoError(t, err)
	var undocumented []string
	for _, found := range exportedNames(parsed) {
		if !found.documented {
			undocumented = append(undocumented, found.name)
		}
	}
	assert.Equal(t, []string{"T.Third", "U", "B", "T.Method", "F"}, undocumented)
}

// exportedName is a name that go doc shows.
type exportedName struct {
	name       string
	at         token.Pos
	documented bool
}

func exportedNames(file *ast.File) (names []exportedName) {
	for _, declaration := range file.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			name, exported := funcName(d)
			if exported {
				names = append(names, exportedName{name, d.Pos(), d.Doc != nil})
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				names = append(names, specNames(d, spec)...)
			}
		}
	}
	return names
}

// funcName returns the name of a function or, with its type, of a method; a
// method of a type that is not exported is not, either.
func funcName(d *ast.FuncDecl) (name string, exported bool) {
	if d.Recv == nil {
		return d.Name.Name, d.Name.IsExported()
	}
	receiver := d.Recv.List[0].Type
	if pointer, ok := receiver.(*ast.StarExpr); ok {
		receiver = pointer.X
	}
	if generic, ok := receiver.(*ast.IndexExpr); ok {
		receiver = generic.X
	}
	of, ok := receiver.(*ast.Ident)
	if !ok {
		return d.Name.Name, d.Name.IsExported()
	}
	return of.Name + "." + d.Name.Name, d.Name.IsExported() && of.IsExported()
}

func specNames(d *ast.GenDecl, spec ast.Spec) (names []exportedName) {
	switch s := spec.(type) {
	case *ast.ValueSpec:
		for _, name := range s.Names {
			if name.IsExported() {
				documented := s.Doc != nil || s.Comment != nil || !d.Lparen.IsValid() && d.Doc != nil
				names = append(names, exportedName{name.Name, name.Pos(), documented})
			}
		}
	case *ast.TypeSpec:
		if !s.Name.IsExported() {
			return nil
		}
		names = append(names, exportedName{s.Name.Name, s.Pos(), s.Doc != nil || d.Doc != nil})
		switch definition := s.Type.(type) {
		case *ast.StructType:
			names = append(names, fieldNames(s.Name.Name, definition.Fields)...)
		case *ast.InterfaceType:
			names = append(names, fieldNames(s.Name.Name, definition.Methods)...)
		}
	}
	return names
}

// fieldNames returns the named exported fields. A comment also documents those of
// the fields right below it that it names.
func fieldNames(of string, fields *ast.FieldList) (names []exportedName) {
	above := ""
	for _, field := range fields.List {
		if field.Doc != nil {
			above = field.Doc.Text()
		}
		for _, name := range field.Names {
			if !name.IsExported() {
				continue
			}
			documented := field.Doc != nil || field.Comment != nil || regexp.MustCompile(`\b`+name.Name+`\b`).MatchString(above)
			names = append(names, exportedName{fmt.Sprintf("%s.%s", of, name.Name), name.Pos(), documented})
		}
	}
	return names
}
