package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/invopop/jsonschema"
)

// module is the path of the packages, and packages are those that have the types.
const module = "keyturn"

var packages = []string{"workflows", "activities", "internal/kmipevidence", "internal/ledgerentry"}

// words are the comments of types and fields, in the words of JSON.
type words struct {
	comments map[string]string
	// values of Go's constants, and JSON's names of Go's fields.
	values map[string]string
}

func readWords(root string) (*words, error) {
	reflector := jsonschema.Reflector{}
	w := &words{values: map[string]string{}}
	for _, folder := range packages {
		// The base is such that the folders of the packages make their import paths.
		if err := reflector.AddGoComments(path.Join(module, "tools/schema"), path.Join(root, folder), jsonschema.WithFullComment()); err != nil {
			return nil, err
		}
		if err := w.readConstants(filepath.Join(root, folder)); err != nil {
			return nil, err
		}
	}
	w.comments = reflector.CommentMap
	for _, d := range documents {
		for _, of := range structsOf(d.of) {
			for i := range of.NumField() {
				if field := of.Field(i); field.IsExported() && !field.Anonymous && jsonName(field) != "-" {
					w.values[field.Name] = jsonName(field)
				}
			}
		}
	}
	return w, nil
}

// readConstants reads constants that are texts.
func (w *words) readConstants(folder string) error {
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			return err
		}
		w.addConstants(parsed)
	}
	return nil
}

func (w *words) addConstants(file *ast.File) {
	ast.Inspect(file, func(node ast.Node) bool {
		spec, isValue := node.(*ast.ValueSpec)
		if !isValue || len(spec.Values) != len(spec.Names) {
			return true
		}
		for i, name := range spec.Names {
			if literal, isLiteral := spec.Values[i].(*ast.BasicLit); isLiteral && literal.Kind == token.STRING {
				if text, err := strconv.Unquote(literal.Value); err == nil && name.IsExported() {
					w.values[name.Name] = strconv.Quote(text)
				}
			}
		}
		return true
	})
}

var (
	// goName has a capital within.
	goName  = regexp.MustCompile(`\b[A-Z]+[a-z]+[A-Z]\w*`)
	goSpeak = strings.NewReplacer(" (in Go: zero)", "", " has the default of\n[DefaultRotateClusterInput]", " has its default",
		" of [DefaultRotateClusterInput]", "", "the default\nof [DefaultRotateDeploymentInput]", "its default",
		"the default of [DefaultRotateFleetInput]", "its default", "nil", "null", "[", "", "]", "")
)

// of is the comment of a type, or of one of its fields.
func (w *words) of(t reflect.Type, field string) string {
	text := w.comments[path.Join(t.PkgPath())+"."+t.Name()]
	if field != "" {
		text = w.comments[t.PkgPath()+"."+t.Name()+"."+field]
	}
	text = strings.Join(strings.Fields(goSpeak.Replace(text)), " ")
	if rest, found := strings.CutPrefix(text, field+" "); found && field != "" {
		text = w.values[field] + " " + rest
	}
	return goName.ReplaceAllStringFunc(text, func(name string) string {
		if value, found := w.values[name]; found {
			return value
		}
		return name
	})
}
