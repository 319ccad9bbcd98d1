package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// format is a way to write records; it is a flag's value.
type format string

const (
	formatTable    format = "table"
	formatJSON     format = "json"
	formatCSV      format = "csv"
	formatMarkdown format = "markdown"
)

var formats = []string{string(formatTable), string(formatJSON), string(formatCSV), string(formatMarkdown)}

func (f *format) String() string { return string(*f) }

// Set is what pflag asks for.
func (f *format) Set(text string) error {
	if !slices.Contains(formats, text) {
		return fmt.Errorf("must be one of %s", strings.Join(formats, ", "))
	}
	*f = format(text)
	return nil
}

// Type is what the help shows.
func (f *format) Type() string { return strings.Join(formats, "|") }

func (f *format) addFlag(command *cobra.Command) {
	*f = formatTable
	command.Flags().VarP(f, "output", "o", "how to write the records; messages go to standard error")
	completeWith(command, "output", formats)
}

// completeWith gives the shell a flag's values.
func completeWith(command *cobra.Command, flag string, values []string) {
	must(command.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
}
