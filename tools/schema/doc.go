// Command schema writes the JSON Schemas of keyturn's workflows, updates and records
// into docs/schema, from the Go types: fields, which of them are required, and their
// comments. What the types do not say stands in rules.go: limits, which the worker
// checks when it takes an input. Tests of the package workflows compare both.
//
//	go -C tools/schema run .
package main
