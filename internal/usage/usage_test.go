package usage_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"

	"keyturn/internal/usage"
)

func command() *cobra.Command {
	root := &cobra.Command{Use: "program", SilenceErrors: true, SilenceUsage: true, RunE: func(*cobra.Command, []string) error { return nil }}
	start := &cobra.Command{Use: "start", Args: cobra.NoArgs, RunE: root.RunE}
	flags := start.Flags()
	flags.Int("count", 0, "")
	flags.Bool("wait", false, "")
	flags.StringSlice("names", nil, "")
	flags.Func("color", "", func(string) error { return errors.New("must be red") })
	for _, name := range []string{"project", "cluster", "fleet", "by", "to"} {
		flags.String(name, "", "")
	}
	start.MarkFlagsRequiredTogether("project", "cluster")
	start.MarkFlagsMutuallyExclusive("fleet", "project")
	start.MarkFlagsOneRequired("project", "fleet", "wait")
	must := &cobra.Command{Use: "send", Args: cobra.NoArgs, RunE: root.RunE}
	for _, name := range []string{"by", "to"} {
		must.Flags().String(name, "", "")
		if err := must.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
	root.AddCommand(start, must)
	return root
}

func TestWrongUsageIsExplained(t *testing.T) {
	for args, want := range map[string]string{
		"start --nope":                       "unknown flag: --nope; see program start --help",
		"start -x":                           "unknown shorthand flag: 'x' in -x; see program start --help",
		"start --by":                         "--by requires a value; see program start --help",
		"start --count many":                 `--count: "many" must be a whole number`,
		"start --count 99999999999999999999": `--count: "99999999999999999999" must be a whole number`,
		"start --wait=maybe":                 `--wait: "maybe" must be true or false`,
		`start --names a"b`:                  `--names: "a\"b" must be a comma-separated list`,
		"start --color blue":                 "--color: must be red",
		"start":                              "--project, --fleet or --wait is required",
		"start --project p":                  "--project requires --cluster",
		"start --fleet f --project p --cluster c": "--fleet and --project cannot be used together",
		"start now":      `unexpected argument "now": program start takes flags only; see program start --help`,
		"strt":           `unknown command "strt" (did you mean start?); see program --help`,
		"elsewhere":      `unknown command "elsewhere"; see program --help`,
		"send":           "--by and --to are required",
		"send --by erin": "--to is required",
	} {
		root := command()
		root.SetArgs(strings.Fields(args))
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		ran, err := root.ExecuteC()
		if assert.Error(t, err, args) {
			assert.EqualError(t, usage.Explain(ran, err), want, args)
		}
	}
}

func TestOtherErrorsAreLeftAlone(t *testing.T) {
	other := errors.New("--project: must be 24 hex digits")
	assert.Same(t, other, usage.Explain(command(), other))
}
