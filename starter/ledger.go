package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"keyturn/internal/ledger"
	"keyturn/internal/setting"
	"keyturn/internal/version"
)

// openLedger opens the configured ledger to read from it; nil = none is configured.
func (a *app) openLedger(ctx context.Context) (*ledger.Ledger, error) {
	opened, err := ledger.OpenFromEnvironment(ctx, a.env, ledger.Options{ReadOnly: true, ProgramVersion: version.String()})
	var wrong *setting.Error
	if errors.As(err, &wrong) || errors.Is(err, ledger.ErrSettings) {
		return nil, usageErrorf("%v", err)
	}
	return opened, err
}

// withLedger opens the ledger for an action.
func (a *app) withLedger(ctx context.Context, action func(*ledger.Ledger) error) (err error) {
	opened, err := a.openLedger(ctx)
	switch {
	case err != nil:
		return err
	case opened == nil:
		return usageErrorf("%s is required: the address of the workers' ledger, such as sqlite:///var/lib/keyturn/ledger.db or postgres://user@host/database", ledger.URLVariable)
	}
	defer func() { err = cmp.Or(err, opened.Close()) }()
	return action(opened)
}

func (a *app) ledgerCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "ledger",
		GroupID: groupLedger,
		Short:   "Check that the records were not changed",
		Long:    ledgerHelp,
		RunE:    requireSubcommand,
	}
	command.AddCommand(a.ledgerVerifyCommand(), a.ledgerAnchorCommand())
	return command
}

// proofFlags name what a ledger is checked against.
type proofFlags struct {
	publicKeys, anchor string
	allowUnsigned      bool
}

func (f *proofFlags) addFlags(command *cobra.Command) {
	command.Flags().StringVar(&f.publicKeys, "public-keys", "", "PEM file with the Ed25519 public keys of all signing keys that were ever used; without it, signatures are not checked")
	command.Flags().BoolVar(&f.allowUnsigned, "allow-unsigned", false, "with --public-keys: accept entries from before the first signed one of their chain, if the ledger was begun without a signing key")
	command.Flags().StringVar(&f.anchor, "against-anchor", "", "file that keyturn ledger anchor has written, kept elsewhere since; without it, removed newest entries are not found")
	for _, flag := range []string{"public-keys", "against-anchor"} {
		must(command.MarkFlagFilename(flag))
	}
}

// options reads the files.
func (f *proofFlags) options() (options ledger.VerifyOptions, err error) {
	if f.allowUnsigned && f.publicKeys == "" {
		return options, usageErrorf("--allow-unsigned requires --public-keys")
	}
	options.AllowUnsigned = f.allowUnsigned
	if f.publicKeys != "" {
		text, err := setting.ReadFile("--public-keys", f.publicKeys)
		if err != nil {
			return options, usageErrorf("%v", err)
		}
		if options.PublicKeys, err = ledger.ParsePublicKeys(text); err != nil {
			return options, usageErrorf("--public-keys: %v", err)
		}
	}
	if f.anchor != "" {
		text, err := os.ReadFile(f.anchor)
		if err != nil {
			return options, usageErrorf("--against-anchor: %v", err)
		}
		anchor, err := ledger.ReadAnchor(bytes.NewReader(text))
		if err != nil {
			return options, usageErrorf("--against-anchor: %v", err)
		}
		options.Anchor = &anchor
	}
	return options, nil
}

func (a *app) ledgerVerifyCommand() *cobra.Command {
	f := &proofFlags{}
	command := &cobra.Command{
		Use:     "verify",
		Short:   "Check every entry's hash, chain and signature",
		Long:    ledgerVerifyHelp,
		Example: ledgerVerifyExamples,
		Args:    cobra.NoArgs,
	}
	command.RunE = a.action(func(ctx context.Context, _ *cobra.Command) error {
		options, err := f.options()
		if err != nil {
			return err
		}
		return a.withLedger(ctx, func(l *ledger.Ledger) error { return a.verifyLedger(ctx, l, options) })
	})
	f.addFlags(command)
	a.format.addFlag(command)
	return command
}

func (a *app) verifyLedger(ctx context.Context, l *ledger.Ledger, options ledger.VerifyOptions) error {
	found, err := l.Verify(ctx, options)
	if err != nil {
		return err
	}
	v := &verificationView{Verification: found, IsIntact: found.Intact()}
	if err := a.writeAs(v, v.table, v.csv, v.markdown); err != nil {
		return err
	}
	return v.failure()
}

// verificationView is what is shown of a verification.
type verificationView struct {
	ledger.Verification
	IsIntact bool `json:"intact"`
}

// failure is what is wrong, in one line; nil = nothing was found.
func (v *verificationView) failure() error {
	switch {
	case len(v.Faults) > 0:
		return fmt.Errorf("the ledger was changed: %s", pluralize(len(v.Faults), "fault"))
	case len(v.MissingTriggers) > 0:
		return errors.New("no entry was changed, but the database does not refuse changes: restore its triggers")
	default:
		return nil
	}
}

func (v *verificationView) verdict() string {
	switch {
	case len(v.Faults) > 0:
		return "NOT INTACT"
	case len(v.MissingTriggers) > 0:
		return "no entry was changed, but the database does not refuse changes"
	default:
		return "intact"
	}
}

// signatures and anchor say what was checked, and so what a verdict is worth.
func (v *verificationView) signatures() string {
	counts := fmt.Sprintf("%d signed, %d not", v.Signed, v.Unsigned)
	if !v.SignaturesChecked {
		return counts + "; NOT CHECKED: without --public-keys, a chain that was rewritten with new hashes is not found"
	}
	return counts + "; checked"
}

func (v *verificationView) anchor() string {
	if !v.AnchorChecked {
		return "NOT CHECKED: without --against-anchor, removed newest entries are not found"
	}
	return "every head in it is in the ledger, or is named below"
}

func (v *verificationView) facts() []fact {
	facts := []fact{
		{"Ledger", v.verdict()}, {"Entries", strconv.Itoa(v.Entries)}, {"Chains", strconv.Itoa(v.Chains)},
		{"Signatures", v.signatures()}, {"Anchor", v.anchor()},
	}
	for _, trigger := range v.MissingTriggers {
		facts = append(facts, fact{"Missing", "trigger " + trigger})
	}
	return nonEmpty(facts)
}

var faultColumns = []columnOf[ledger.Fault]{
	{newTextField("Chain", func(f ledger.Fault) string { return f.Chain })},
	{{title: "Sequence", isNumber: true, line: func(f ledger.Fault) htmlLine { return htmlLine{Text: strconv.FormatInt(f.Sequence, 10)} }}},
	{newTextField("Fault", func(f ledger.Fault) string { return string(f.Reason) })},
	{newTextField("Detail", func(f ledger.Fault) string { return f.Detail })},
}

var faultCSV = []csvColumnOf[ledger.Fault]{
	{"chain", func(f ledger.Fault) string { return f.Chain }},
	{"sequence", func(f ledger.Fault) string { return strconv.FormatInt(f.Sequence, 10) }},
	{"key", func(f ledger.Fault) string { return f.Key }},
	{"reason", func(f ledger.Fault) string { return string(f.Reason) }},
	{"detail", func(f ledger.Fault) string { return f.Detail }},
}

// faultLines are for a terminal: details are too long for a table's cells.
func (v *verificationView) table(l layout) string {
	text := l.head(v.facts(), "")
	for _, fault := range v.Faults {
		text += "\n" + l.line(clean(fault.String()))
	}
	return text
}

func (v *verificationView) csv() string { return csvOf(faultCSV, v.Faults) }

func (v *verificationView) markdown() string {
	text := markdownHead("Verification of the ledger", v.facts())
	if len(v.Faults) > 0 {
		text += "\n## Faults\n\n" + markdownOf(faultColumns, v.Faults) + "\n"
	}
	return text
}

func (a *app) ledgerAnchorCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "anchor",
		Short: "Print the heads of all chains, to be kept elsewhere",
		Long: `Prints the newest entry of each chain, with its hash, as JSON. Keep it where
the owner of the database cannot write: in a ticket, a mailbox, write-once
storage. "keyturn ledger verify --against-anchor FILE" then finds entries that
were removed since, or rewritten.

Take an anchor after a verification, and at least as often as you want to be
able to prove that nothing was removed: entries that are newer than the anchor
are not protected by it.`,
		Example: `  keyturn ledger anchor > anchor-2026-03-31.json
  keyturn ledger verify --against-anchor anchor-2026-03-31.json`,
		Args: cobra.NoArgs,
	}
	command.RunE = a.action(func(ctx context.Context, _ *cobra.Command) error {
		return a.withLedger(ctx, func(l *ledger.Ledger) error {
			anchor, err := l.Anchor(ctx)
			if err != nil {
				return err
			}
			text, err := jsonText(anchor, "")
			if err != nil {
				return err
			}
			return writeLine(a.stdout, text)
		})
	})
	return command
}

const ledgerHelp = `The ledger has one entry for every rotation that ended, for longer than Temporal
keeps it. KEYTURN_LEDGER names it, as for the workers; these commands only read
it. On PostgreSQL, KEYTURN_LEDGER_PASSWORD_FILE names a file with the password;
a role that may only read is enough.

Entries are shown by "keyturn history", "keyturn report" and "keyturn evidence".`

const ledgerVerifyHelp = `Checks every entry: its hash, its place in the chain of its cluster, deployment
or fleet, and its signature. If entries do not fit, it names the first one in
each chain, and the exit code is 1.

What is always found: an entry that was changed, moved, inserted or duplicated,
or removed from within a chain.

What is found only with --against-anchor: that the newest entries of a chain, or
all entries of a chain, were removed; what is left is a valid, shorter ledger.
"keyturn ledger anchor" writes the file; entries that are newer than the anchor
may still have been removed.

What is found only with --public-keys or --against-anchor: that a chain was
rewritten from some entry on, with new hashes. Whoever has the signing key can
sign such a chain, too: then only the anchor finds it.

What is never found: that a record was wrong when it was written.

Triggers in the database refuse changes of entries. If they are missing, the
exit code is 1 as well, even if all entries fit.`

const ledgerVerifyExamples = `  keyturn ledger verify

  # What an auditor runs: the public keys and an anchor come from elsewhere
  keyturn ledger verify --public-keys ledger-keys.pem \
    --against-anchor anchor-2026-03-31.json

  # Make the public keys' file of a signing key
  openssl pkey -in signing.pem -pubout >> ledger-keys.pem`
