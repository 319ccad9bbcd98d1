package docs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/testsuite/support/programs"
)

var (
	shellBlock = regexp.MustCompile("(?ms)^ *```sh$(.*?)^ *```$")
	// shownCommand is a command of keyturn at the beginning of a line, or in a
	// container.
	shownCommand = regexp.MustCompile(`(?m)^ *(?:docker compose exec worker )?(?:keyturn|go run \./starter) (.*)$`)
	// inlineCommand is a command in a sentence, with a flag.
	inlineCommand = regexp.MustCompile("`(?:keyturn|go run \\./starter) ([a-z][^`]* --[^`]*)`")
	// endOfCommand is what a shell takes for something else.
	endOfCommand = regexp.MustCompile(` *(?: #|[|>]).*$`)
)

// The command line accepts every command that the documentation shows: its name and
// its flags, as far as each flag can be checked by itself.
func TestCommandsInTheDocumentationExist(t *testing.T) {
	t.Parallel()
	program := programs.Build(t, "./starter")
	commands := map[string][]string{} // by page
	for _, page := range pages(t) {
		if filepath.Base(page) != "CHANGELOG.md" { // it names commands as they were
			commands[page] = commandsOf(readPage(t, page))
		}
	}
	checked := 0
	for page, shown := range commands {
		for _, command := range shown {
			checked++
			output, err := helpOf(t.Context(), program, command)
			assert.NoError(t, err, "%s shows: keyturn %s\n%s", page, command, output)
		}
	}
	require.Greater(t, checked, 50, "the commands are not found any more")
	_, err := helpOf(t.Context(), program, "rotate --no-such-flag")
	require.Error(t, err, "a wrong flag is not noticed")
	_, err = helpOf(t.Context(), program, "no-such-command --fleet")
	require.Error(t, err, "a wrong command is not noticed")
}

func commandsOf(page string) (commands []string) {
	for _, block := range shellBlock.FindAllStringSubmatch(page, -1) {
		text := strings.ReplaceAll(block[1], "\\\n", " ")
		for _, found := range shownCommand.FindAllStringSubmatch(text, -1) {
			commands = append(commands, found[1])
		}
	}
	for _, found := range inlineCommand.FindAllStringSubmatch(page, -1) {
		commands = append(commands, found[1])
	}
	for i := range commands {
		commands[i] = endOfCommand.ReplaceAllString(commands[i], "")
	}
	return commands
}

// helpOf runs a command with --help, which it prints if its flags are right.
func helpOf(ctx context.Context, program, command string) (string, error) {
	shell := exec.CommandContext(ctx, "sh", "-c", program+" "+command+" --help")
	shell.Env = append(os.Environ(), "P=5196d3628d022db4cbc26d9e", "C=65a1f1aa0000000000000001")
	output, err := shell.CombinedOutput()
	return string(output), err
}
