// Command mutations applies one mutation at a time to a copy of the module and
// checks that the tests fail for each. It fails if a mutation survives or no
// longer matches the code.
//
//	go run ./testsuite/mutations            # all of them
//	go run ./testsuite/mutations -only lock # those whose names contain "lock"
//	go run ./testsuite/mutations -part 2/4  # the second quarter
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
	only := flag.String("only", "", "run only the mutations whose names contain this text")
	whole := part{1, 1}
	flag.TextVar(&whole, "part", whole, "run only this `part` of the mutations, such as 2/4: every fourth one, from the second on")
	flag.Parse()
	if err := run(*only, whole); err != nil {
		fmt.Fprintln(os.Stderr, "mutations:", err)
		os.Exit(1)
	}
}

// part is one of several equal parts of the mutations.
type part struct{ number, of int }

func (p part) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%d/%d", p.number, p.of), nil }

func (p *part) UnmarshalText(text []byte) error {
	if _, err := fmt.Sscanf(string(text), "%d/%d", &p.number, &p.of); err != nil || p.number < 1 || p.number > p.of {
		return fmt.Errorf("must be a number and a number of parts, such as 2/4")
	}
	return nil
}

func (p part) has(i int) bool { return i%p.of == p.number-1 }

func run(only string, chosen part) error {
	copied, err := copyModule()
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(copied) }()
	var made, caught int
	for i, m := range mutations {
		if !strings.Contains(m.name, only) || !chosen.has(i) {
			continue
		}
		made++
		result, err := m.try(copied)
		if err != nil {
			fmt.Printf("INVALID   %s: %v\n", m.name, err)
			continue
		}
		if result.caught {
			caught++
		}
		fmt.Println(result)
	}
	fmt.Printf("%d of %d mutations caught\n", caught, made)
	if made == 0 || caught < made {
		return fmt.Errorf("%d of %d mutations were caught", caught, made)
	}
	return nil
}

// copyModule copies the files of the module that git does not ignore.
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
	if os.IsNotExist(err) { // deleted but not committed yet
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

// outcome says whether the tests caught a mutation.
type outcome struct {
	name   string
	caught bool
	by     string // the first test that failed
	took   time.Duration
}

func (v outcome) String() string {
	if !v.caught {
		return fmt.Sprintf("SURVIVED  %s (%.0fs)", v.name, v.took.Seconds())
	}
	return fmt.Sprintf("caught    %s, by %s (%.0fs)", v.name, v.by, v.took.Seconds())
}

// try applies the mutation to the copy, runs the tests and restores the file.
func (m mutation) try(copied string) (outcome, error) {
	path := filepath.Join(copied, m.file)
	whole, err := os.ReadFile(path)
	if err != nil {
		return outcome{}, err
	}
	if n := strings.Count(string(whole), m.old); n != 1 {
		return outcome{}, fmt.Errorf("the original text occurs %d times in %s, expected once: update the mutation", n, m.file)
	}
	mutated := strings.Replace(string(whole), m.old, m.new, 1)
	if err := os.WriteFile(path, []byte(mutated), 0o644); err != nil {
		return outcome{}, err
	}
	defer func() { _ = os.WriteFile(path, whole, 0o644) }()
	return m.test(copied)
}

// test runs the tests. A mutation that does not compile proves nothing.
func (m mutation) test(copied string) (outcome, error) {
	started := time.Now()
	// A mutation that only vet notices is not caught by a test.
	command := exec.Command("go", append([]string{"test", "-failfast", "-timeout", "2m", "-vet=off"}, m.tests...)...)
	command.Dir = copied
	out, err := command.CombinedOutput()
	if strings.Contains(string(out), "[build failed]") {
		return outcome{}, fmt.Errorf("the mutated package does not compile:\n%s", out)
	}
	v := outcome{name: m.name, took: time.Since(started), caught: err != nil}
	if v.caught {
		v.by = firstFailure(string(out))
	}
	if v.by == "" && strings.Contains(string(out), "panic: test timed out") {
		v.by = "the tests' timeout"
	}
	if v.caught && v.by == "" {
		return v, fmt.Errorf("the tests did not run:\n%s", out)
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
