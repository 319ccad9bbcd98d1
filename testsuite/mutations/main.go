// Command mutations breaks the code on purpose, one mutation at a time, in a
// copy of the module, and shows that the tests turn red for each. It fails where
// one survives, or where a mutation no longer fits the code.
//
//	go run ./testsuite/mutations            # all of them
//	go run ./testsuite/mutations -only lock # those whose name holds "lock"
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	only := flag.String("only", "", "run only the mutations whose name holds this")
	flag.Parse()
	if err := run(*only); err != nil {
		fmt.Fprintln(os.Stderr, "mutations:", err)
		os.Exit(1)
	}
}

func run(only string) error {
	copied, err := copyModule()
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(copied) }()
	var made, caught int
	for _, m := range mutations {
		if !strings.Contains(m.name, only) {
			continue
		}
		made++
		verdict, err := m.try(copied)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if verdict.caught {
			caught++
		}
		fmt.Println(verdict)
	}
	fmt.Printf("%d mutations made, %d caught\n", made, caught)
	if made == 0 || caught < made {
		return fmt.Errorf("%d of %d mutations were caught", caught, made)
	}
	return nil
}

// copyModule copies what git knows of the module, and what it doesn't ignore.
func copyModule() (string, error) {
	root, err := output(".", "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return "", err
	}
	root = strings.TrimSpace(root)
	files, err := output(root, "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
	if err != nil {
		return "", err
	}
	copied, err := os.MkdirTemp("", "mutations")
	if err != nil {
		return "", err
	}
	for file := range strings.SplitSeq(strings.TrimRight(files, "\x00"), "\x00") {
		if err := copyFile(filepath.Join(root, file), filepath.Join(copied, file)); err != nil {
			return "", err
		}
	}
	return copied, nil
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if os.IsNotExist(err) { // deleted, and not committed yet
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}

func output(directory, name string, arguments ...string) (string, error) {
	command := exec.Command(name, arguments...)
	command.Dir = directory
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, stderr.String())
	}
	return string(out), nil
}

// verdict is what became of a mutation.
type verdict struct {
	name   string
	caught bool
	by     string // the first test that failed
	took   time.Duration
}

func (v verdict) String() string {
	if !v.caught {
		return fmt.Sprintf("SURVIVED  %s (%.0fs)", v.name, v.took.Seconds())
	}
	return fmt.Sprintf("caught    %s, by %s (%.0fs)", v.name, v.by, v.took.Seconds())
}

// try breaks the copy, runs the tests, and mends it again.
func (m mutation) try(copied string) (verdict, error) {
	path := filepath.Join(copied, m.file)
	whole, err := os.ReadFile(path)
	if err != nil {
		return verdict{}, err
	}
	if n := strings.Count(string(whole), m.old); n != 1 {
		return verdict{}, fmt.Errorf("its place is found %d times in %s: bring the mutation up to date", n, m.file)
	}
	broken := strings.Replace(string(whole), m.old, m.new, 1)
	if err := os.WriteFile(path, []byte(broken), 0o644); err != nil {
		return verdict{}, err
	}
	defer func() { _ = os.WriteFile(path, whole, 0o644) }()
	return m.test(copied)
}

// test runs the tests. A mutation that does not build proves nothing.
func (m mutation) test(copied string) (verdict, error) {
	if out, err := output(copied, "go", "vet", "./"+filepath.Dir(m.file)); err != nil {
		return verdict{}, fmt.Errorf("it does not build: %s%w", out, err)
	}
	started := time.Now()
	command := exec.Command("go", append([]string{"test", "-failfast", "-timeout", "4m"}, m.tests...)...)
	command.Dir = copied
	out, err := command.CombinedOutput()
	v := verdict{name: m.name, took: time.Since(started), caught: err != nil}
	if v.caught {
		v.by = firstFailure(string(out))
	}
	if v.caught && v.by == "" {
		return v, fmt.Errorf("the tests could not run:\n%s", out)
	}
	return v, nil
}

func firstFailure(out string) string {
	_, after, found := strings.Cut(out, "--- FAIL: ")
	if !found {
		return ""
	}
	name, _, _ := strings.Cut(after, " ")
	return name
}
