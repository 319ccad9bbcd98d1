// Command standins makes images that stand in for the public ones which
// keyturn's Dockerfile and docker-compose.yml begin from, on a machine that has
// a Docker engine and can't reach their registries: of this machine's own Go,
// modules, certificates and Temporal tool, under the same names. So the real
// files can be run.
//
//	go run ./testsuite/containers/standins          # makes those that are missing
//	go run ./testsuite/containers/standins -remove  # removes them
//
// An image that is there is left alone, and one that can be pulled is pulled.
// The stand-ins carry the label keyturn.stand-in, and so does what is built on
// one of them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

const label = "keyturn.stand-in"

// standIn is an image, and what is done to have it.
type standIn struct {
	repository string
	file       string   // which names its version
	changes    []string // its settings, as in a Dockerfile
	fill       func(context.Context, *tree) error
}

var standIns = []standIn{
	{
		repository: "golang", file: "Dockerfile", fill: fillGolang,
		changes: []string{
			"ENV PATH=/usr/local/go/bin:/bin", "ENV GOTOOLCHAIN=local", "ENV GOPATH=/go", "ENV HOME=/root",
			"ENV GOPROXY=file://" + modules, "ENV GOSUMDB=off",
		},
	},
	{
		repository: "gcr.io/distroless/static-debian12", file: "Dockerfile", fill: fillDistroless,
		changes: []string{
			"ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"ENV SSL_CERT_FILE=" + certificates, "USER 65532", "WORKDIR /home/nonroot",
		},
	},
	{
		repository: "temporalio/temporal", file: "docker-compose.yml", fill: fillTemporal,
		changes: []string{
			"ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"USER temporal", `ENTRYPOINT ["temporal"]`,
		},
	},
}

func main() {
	remove := flag.Bool("remove", false, "remove the stand-ins")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	do := makeMissing
	if *remove {
		do = removeAll
	}
	if err := do(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "standins:", err)
		os.Exit(1)
	}
}

func makeMissing(ctx context.Context) error {
	root, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "keyturn")
	if err != nil {
		return err
	}
	for _, s := range standIns {
		if err := s.makeIfMissing(ctx, root); err != nil {
			return err
		}
	}
	return nil
}

func (s standIn) makeIfMissing(ctx context.Context, root string) error {
	name, err := s.name(root)
	if err != nil {
		return err
	}
	if _, err := output(ctx, "docker", "image", "inspect", name); err == nil {
		fmt.Println(name, "is there")
		return nil
	}
	if _, err := output(ctx, "docker", "pull", "--quiet", name); err == nil {
		fmt.Println(name, "is pulled")
		return nil
	}
	if err := s.make(ctx, name); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Println(name, "has a stand-in")
	return nil
}

// name is the image's, with the version that the file names.
func (s standIn) name(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, s.file))
	if err != nil {
		return "", err
	}
	name := regexp.MustCompile(`(?m)^(?:FROM|\s+image:) (` + regexp.QuoteMeta(s.repository) + `:\S+)`).FindSubmatch(text)
	if name == nil {
		return "", fmt.Errorf("%s names no %s", s.file, s.repository)
	}
	return string(name[1]), nil
}

// make streams the image's files to the engine.
func (s standIn) make(ctx context.Context, name string) error {
	arguments := []string{"import", "--change", "LABEL " + label + "=true"}
	for _, change := range s.changes {
		arguments = append(arguments, "--change", change)
	}
	command := exec.CommandContext(ctx, "docker", append(arguments, "-", name)...)
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	files := newTree(in)
	if err := s.fill(ctx, files); err != nil {
		// Without the archive's end, no image is made.
		_ = command.Process.Kill()
		_ = command.Wait()
		return err
	}
	if err := files.close(); err != nil {
		return err
	}
	if err := in.Close(); err != nil {
		return err
	}
	return command.Wait()
}

// removeAll also removes what builds have left of the stand-ins without a name.
func removeAll(ctx context.Context) error {
	for _, s := range standIns {
		names, err := output(ctx, "docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}",
			"--filter", "label="+label, "--filter", "dangling=false", "--filter", "reference="+s.repository)
		if err != nil {
			return err
		}
		for _, name := range strings.Fields(names) {
			if _, err := output(ctx, "docker", "image", "rm", name); err != nil {
				return err
			}
			fmt.Println(name, "is removed")
		}
	}
	_, err := output(ctx, "docker", "image", "prune", "--force", "--filter", "label="+label)
	return err
}

// output runs a command, and gives what it writes without the white space
// around it.
func output(ctx context.Context, name string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, name, arguments...)
	var complaint strings.Builder
	command.Stderr = &complaint
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, arguments[0], err, strings.TrimSpace(complaint.String()))
	}
	return strings.TrimSpace(string(out)), nil
}
