// Package schemas checks JSON with the schemas of docs/schema.
package schemas

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/google/jsonschema-go/jsonschema"
)

var (
	mu     sync.Mutex
	loaded = map[string]*jsonschema.Resolved{}
)

// Folder is where the schemas are, wherever the test runs.
func Folder() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "../../../docs/schema")
}

func load(name string) (*jsonschema.Resolved, error) {
	mu.Lock()
	defer mu.Unlock()
	if schema := loaded[name]; schema != nil {
		return schema, nil
	}
	text, err := os.ReadFile(filepath.Join(Folder(), name))
	if err != nil {
		return nil, err
	}
	var schema jsonschema.Schema
	if err := json.Unmarshal(text, &schema); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	loaded[name], err = schema.Resolve(nil)
	return loaded[name], err
}

// Check returns what a schema has against JSON; nil = it is valid. An unreadable
// schema or text is an error, too.
func Check(name string, text []byte) error {
	schema, err := load(name)
	if err != nil {
		return err
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return err
	}
	if err := schema.Validate(value); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// beyondSchemas are refusals that no schema can express.
var beyondSchemas = []string{
	"duplicate field", ", too", "must not be in the future", "must differ from", "is required for a ", "must be a regular expression", "must be 0s to ",
	"must be 1ms to ", "must be 1s to ", "must not be before", "must be in whole seconds", "must be a time in RFC 3339",
}

// Compare returns where a schema and the worker differ about an input: refusal is
// the worker's message, empty = it takes the input.
func Compare(name string, input []byte, refusal string) error {
	err := Check(name, input)
	switch {
	case refusal == "" && err != nil:
		return fmt.Errorf("the worker takes what the schema refuses: %.1000s: %w", input, err)
	case refusal == "" || err != nil:
		return nil
	}
	for fault := range strings.SplitSeq(refusal, "; ") {
		if !slices.ContainsFunc(beyondSchemas, func(phrase string) bool { return strings.Contains(fault, phrase) }) {
			return fmt.Errorf("%s takes what the worker refuses: %.1000s: %s", name, input, fault)
		}
	}
	return nil
}

// Property is a field of an object.
type Property struct {
	Name string
	*jsonschema.Schema
}

// Properties are the fields of a document's objects, by the path of the object:
// "" for the document itself, "change" for the object in a field, "completed[]" for
// those in a list.
func Properties(name string) (map[string][]Property, error) {
	resolved, err := load(name)
	if err != nil {
		return nil, err
	}
	root := resolved.Schema()
	found := map[string][]Property{}
	var walk func(path string, schema *jsonschema.Schema)
	walk = func(path string, schema *jsonschema.Schema) {
		object := inner(root, schema)
		for _, field := range slices.Sorted(maps.Keys(object.Properties)) {
			property := inner(root, object.Properties[field])
			found[path] = append(found[path], Property{field, property})
			below := strings.TrimPrefix(path+"."+field, ".")
			switch {
			case property.Items != nil:
				walk(below+"[]", property.Items)
			case property.Properties != nil:
				walk(below, property)
			}
		}
	}
	walk("", root)
	return found, nil
}

// inner is what a reference leads to, or what is not null.
func inner(root, schema *jsonschema.Schema) *jsonschema.Schema {
	for {
		switch {
		case schema.Ref != "":
			schema = root.Defs[strings.TrimPrefix(schema.Ref, "#/$defs/")]
		case len(schema.AnyOf) > 0:
			schema = schema.AnyOf[0]
		default:
			return schema
		}
	}
}
