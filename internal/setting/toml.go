package setting

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// TOMLProblem says where a TOML file is wrong, but does not show its text, which
// may be a secret.
func TOMLProblem(err error) string {
	var parseErr toml.ParseError
	if errors.As(err, &parseErr) {
		return fmt.Sprintf("the file is not valid TOML: line %d", parseErr.Position.Line)
	}
	return "the file is not valid TOML"
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`)

// InFile returns the name of a key in a TOML file that the setting names, as in
// "KEYTURN_CONNECTIONS_FILE: connections.emea.url". Empty parts are left out.
func InFile(name string, path ...string) string {
	var shown []string
	for _, key := range path {
		switch {
		case key == "":
		case bareKey.MatchString(key):
			shown = append(shown, key)
		default:
			shown = append(shown, strconv.Quote(key))
		}
	}
	return name + ": " + strings.Join(shown, ".")
}
