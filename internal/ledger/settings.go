package ledger

import (
	"context"

	"keyturn/internal/setting"
)

// Settings say where a ledger is, checked. The zero value is that of a program
// that has none.
type Settings struct {
	// URL as for [Open]; empty = no ledger.
	URL string
	// Options as for [Open].
	Options Options
}

// ReadSettings reads and checks the settings of the environment without any
// network; options has what is no setting. A SQLite file is created, unless it
// is only to be read. The error is a [*setting.Error].
func ReadSettings(env setting.Environment, options Options) (Settings, error) {
	s := Settings{Options: options}
	s.URL, _ = env.LookupEnv(URLVariable)
	for _, file := range []struct {
		variable string
		path     *string
	}{{PasswordFileVariable, &s.Options.PasswordFile}, {SigningKeyFileVariable, &s.Options.SigningKeyFile}} {
		path, set := env.LookupEnv(file.variable)
		switch {
		case !set:
			continue
		case s.URL == "":
			return Settings{}, setting.Errorf(file.variable, "requires %s", URLVariable)
		case options.ReadOnly && file.variable == SigningKeyFileVariable:
			continue // who only reads needs no permission to sign
		}
		if _, err := setting.ReadFile(file.variable, path); err != nil {
			return Settings{}, err
		}
		*file.path = path
	}
	if s.URL == "" {
		return Settings{}, nil
	}
	return s, s.check()
}

func (s Settings) check() error {
	if s.Options.SigningKeyFile != "" {
		if _, err := readSigningKey(s.Options.SigningKeyFile); err != nil {
			return setting.Errorf(SigningKeyFileVariable, "%v", err)
		}
	}
	opened, err := open(s.URL, s.Options)
	if err != nil {
		return setting.Errorf(URLVariable, "%v", err)
	}
	return opened.Close()
}

// Configured reports whether there is a ledger.
func (s Settings) Configured() bool { return s.URL != "" }

// Open opens the ledger, which must be configured; see [Open].
func (s Settings) Open(ctx context.Context) (*Ledger, error) { return Open(ctx, s.URL, s.Options) }

// OpenFromEnvironment opens the ledger that the environment names; nil if it
// names none. options has what is no setting. An error about a setting is a
// [*setting.Error]; for others see [Open].
func OpenFromEnvironment(ctx context.Context, env setting.Environment, options Options) (*Ledger, error) {
	s, err := ReadSettings(env, options)
	if err != nil || !s.Configured() {
		return nil, err
	}
	return s.Open(ctx)
}
