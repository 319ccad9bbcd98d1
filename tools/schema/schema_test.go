package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The files are those that the types make, and no others.
func TestFilesAreCurrent(t *testing.T) {
	files, err := generate("../..")
	if err != nil {
		t.Fatal(err)
	}
	present, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range present {
		if files[filepath.Base(file)] == nil {
			t.Errorf("%s is of no document: go -C tools/schema run .", file)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		written, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil || string(written) != string(files[name]) {
			t.Errorf("%s is not current: go -C tools/schema run . (%v)", name, err)
		}
	}
}

// Each rule is about a field that there is: one that is misspelt would say nothing.
func TestRulesAreAboutFields(t *testing.T) {
	for name, rules := range inputRules {
		for field := range rules {
			found := false
			for _, d := range documents {
				if of := structsOf(d.of)[name]; d.isInput && of != nil {
					found = found || hasField(d, name, field)
				}
			}
			if !found {
				t.Errorf("%s has no field %s", name, field)
			}
		}
	}
}

func hasField(d document, name, field string) bool {
	_, found := d.schema(&words{}).Definitions[name].Properties.Get(field)
	return found
}
