package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// format is an output format; with a command's formats, it is a flag's value.
type format string

const (
	formatTable    format = "table"
	formatJSON     format = "json"
	formatCSV      format = "csv"
	formatMarkdown format = "markdown"
	formatHTML     format = "html" // of a report only
)

// String implements [pflag.Value].
func (f *format) String() string { return string(*f) }

// formatFlag is the flag of a command that has these formats.
type formatFlag struct {
	*format
	allowed []string
}

// Set implements [pflag.Value].
func (f formatFlag) Set(text string) error {
	if !slices.Contains(f.allowed, text) {
		return fmt.Errorf("must be one of %s", strings.Join(f.allowed, ", "))
	}
	*f.format = format(text)
	return nil
}

// Type implements [pflag.Value]; the help shows it.
func (f *format) Type() string { return "format" }

// addFlag adds the flag -o; more are formats that only this command has.
func (f *format) addFlag(command *cobra.Command, more ...format) {
	f.addFlagOf(command, append([]format{formatTable, formatJSON, formatCSV, formatMarkdown}, more...)...)
}

// addFlagOf adds the flag -o with these formats, the first of which is the default.
func (f *format) addFlagOf(command *cobra.Command, formats ...format) {
	*f = formats[0]
	allowed := make([]string, len(formats))
	for i, one := range formats {
		allowed[i] = string(one)
	}
	command.Flags().VarP(formatFlag{f, allowed}, "output", "o", "output format: "+strings.Join(allowed, ", ")+"; messages go to standard error")
	completeWith(command, "output", allowed)
}

// completeWith offers a flag's values to the shell's completion.
func completeWith(command *cobra.Command, flag string, values []string) {
	must(command.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
}

// completeIDs offers existing IDs to the shell; none if Temporal cannot be
// reached.
func (a *app) completeIDs(list func(*session, context.Context) ([]string, error)) cobra.CompletionFunc {
	return func(command *cobra.Command, _ []string, _ string) (ids []cobra.Completion, _ cobra.ShellCompDirective) {
		if s, err := a.connect(command.Context()); err == nil {
			defer s.Close()
			ids, _ = list(s, command.Context())
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
}
