// Package usage explains wrong flags and arguments: cobra's and pflag's texts do
// not say what to do.
package usage

import (
	"encoding/csv"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is the width of the flags' help, in characters.
const helpWidth = "80"

// WrapFlags wraps the help of all flags of a program, for a terminal.
func WrapFlags(root *cobra.Command) {
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", ".FlagUsagesWrapped "+helpWidth))
}

// cobra has no types for these errors. One whose text has changed is passed on as
// it is; the tests notice.
var (
	unknownCommand = regexp.MustCompile(`^unknown command "([^\n]*)" for "`)
	requiredFlags  = regexp.MustCompile(`^required flag\(s\) "(.*)" not set$`)
	requiredGroup  = regexp.MustCompile(`^if any flags in the group \[(.*)\] are set they must all be set; missing \[(.*)\]$`)
	oneOfGroup     = regexp.MustCompile(`^at least one of the flags in the group \[(.*)\] is required$`)
	exclusiveGroup = regexp.MustCompile(`^if any flags in the group \[.*\] are set none of the others can be; \[(.*)\] were all set$`)
)

// Explain explains an error that cobra returned before it ran the command. Other
// errors are returned as they are.
func Explain(command *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var noValue *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	see := fmt.Sprintf("see %s --help", command.CommandPath())
	match := func(pattern *regexp.Regexp) []string { return pattern.FindStringSubmatch(err.Error()) }
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%w; %s", err, see)
	case errors.As(err, &noValue):
		return fmt.Errorf("--%s requires a value; %s", noValue.GetFlag().Name, see)
	case errors.As(err, &invalid):
		return fmt.Errorf("--%s: %s", invalid.GetFlag().Name, rule(invalid))
	}
	if m := match(unknownCommand); m != nil {
		return fmt.Errorf("%s; %s", unknownArgument(command, m[1]), see)
	}
	if m := match(requiredFlags); m != nil {
		names := strings.Split(m[1], `", "`)
		if len(names) == 1 {
			return fmt.Errorf("--%s is required", names[0])
		}
		return fmt.Errorf("%s are required", list(names, "and"))
	}
	if m := match(requiredGroup); m != nil {
		missing := strings.Fields(m[2])
		var given []string
		for _, name := range strings.Fields(m[1]) {
			if command.Flags().Changed(name) {
				given = append(given, name)
			}
		}
		return fmt.Errorf("%s requires %s", list(given, "and"), list(missing, "and"))
	}
	if m := match(oneOfGroup); m != nil {
		return fmt.Errorf("%s is required", list(strings.Fields(m[1]), "or"))
	}
	if m := match(exclusiveGroup); m != nil {
		return fmt.Errorf("%s cannot be used together", list(strings.Fields(m[1]), "and"))
	}
	return err
}

func unknownArgument(command *cobra.Command, argument string) string {
	if !command.HasAvailableSubCommands() {
		return fmt.Sprintf("unexpected argument %q: %s takes flags only", argument, command.CommandPath())
	}
	text := fmt.Sprintf("unknown command %q", argument)
	if command.SuggestionsMinimumDistance == 0 {
		command.SuggestionsMinimumDistance = 2
	}
	if suggestions := command.SuggestionsFor(argument); len(suggestions) > 0 {
		text += " (did you mean " + strings.Join(suggestions, " or ") + "?)"
	}
	return text
}

// rule is what a flag's value must be.
func rule(invalid *pflag.InvalidValueError) string {
	var number *strconv.NumError
	var items *csv.ParseError
	kind := invalid.GetFlag().Value.Type()
	switch cause := invalid.Unwrap(); {
	case errors.As(cause, &items):
		return fmt.Sprintf("%q must be a comma-separated list", invalid.GetValue())
	case errors.As(cause, &number) && kind == "bool":
		return fmt.Sprintf("%q must be true or false", invalid.GetValue())
	case errors.As(cause, &number), strings.Contains(cause.Error(), "strconv."):
		return fmt.Sprintf("%q must be a whole number", invalid.GetValue())
	default:
		return cause.Error()
	}
}

// list lists flags: "--a, --b or --c".
func list(names []string, last string) string {
	text := "--" + strings.Join(names, ", --")
	if i := strings.LastIndex(text, ", "); i >= 0 {
		text = text[:i] + " " + last + " " + text[i+2:]
	}
	return text
}
