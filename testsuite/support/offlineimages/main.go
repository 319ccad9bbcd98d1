// Command offlineimages creates replacements for the public base images of
// keyturn's Dockerfile and docker-compose.yml, for a machine with a Docker
// engine that cannot reach their registries. The replacements have the same
// names and consist of this machine's Go, modules, certificates and Temporal
// CLI, so that the real files can be used.
//
//	go run ./testsuite/support/offlineimages          # create the missing images
//	go run ./testsuite/support/offlineimages -remove  # remove them
//
// Existing images are left alone, and images that can be pulled are pulled. The
// replacements, and the images built on them, have the label keyturn.stand-in.
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

// image is a base image and how it is created.
type image struct {
	repository string
	file       string   // which has its version
	changes    []string // Dockerfile instructions
	fill       func(context.Context, *tree) error
}

var images = []image{
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
	{
		repository: "postgres", file: "docker-compose.yml", fill: fillPostgres,
		changes: []string{
			"ENV PATH=" + postgresPrograms + ":/bin", "ENV LANG=C.UTF-8", "ENV PGDATA=" + postgresData, "VOLUME " + postgresData,
			`ENTRYPOINT ["/bin/sh", "` + postgresEntryPoint + `"]`, `CMD ["postgres", "-c", "listen_addresses=*"]`,
		},
	},
}

func main() {
	remove := flag.Bool("remove", false, "remove the replacements")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	do := createMissing
	if *remove {
		do = removeAll
	}
	if err := do(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "offlineimages:", err)
		os.Exit(1)
	}
}

func createMissing(ctx context.Context) error {
	root, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "keyturn")
	if err != nil {
		return err
	}
	for _, s := range images {
		if err := s.createIfMissing(ctx, root); err != nil {
			return err
		}
	}
	return nil
}

func (s image) createIfMissing(ctx context.Context, root string) error {
	name, err := s.name(root)
	if err != nil {
		return err
	}
	if _, err := output(ctx, "docker", "image", "inspect", name); err == nil {
		fmt.Println(name, "exists")
		return nil
	}
	if _, err := output(ctx, "docker", "pull", "--quiet", name); err == nil {
		fmt.Println(name, "was pulled")
		return nil
	}
	if err := s.create(ctx, name); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Println(name, "was replaced")
	return nil
}

// name is the name of the image with the version in the file.
func (s image) name(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, s.file))
	if err != nil {
		return "", err
	}
	name := regexp.MustCompile(`(?m)^(?:FROM|\s+image:) (` + regexp.QuoteMeta(s.repository) + `:\S+)`).FindSubmatch(text)
	if name == nil {
		return "", fmt.Errorf("%s has no image %s", s.file, s.repository)
	}
	return string(name[1]), nil
}

// create streams the files of the image to the engine.
func (s image) create(ctx context.Context, name string) error {
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
		// Without the end of the archive, the engine creates no image.
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

// removeAll also removes unnamed images that builds have left.
func removeAll(ctx context.Context) error {
	for _, s := range images {
		names, err := output(ctx, "docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}",
			"--filter", "label="+label, "--filter", "dangling=false", "--filter", "reference="+s.repository)
		if err != nil {
			return err
		}
		for _, name := range strings.Fields(names) {
			if _, err := output(ctx, "docker", "image", "rm", name); err != nil {
				return err
			}
			fmt.Println(name, "was removed")
		}
	}
	_, err := output(ctx, "docker", "image", "prune", "--force", "--filter", "label="+label)
	return err
}

// output runs a command and returns its trimmed output.
func output(ctx context.Context, name string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, name, arguments...)
	var stderr strings.Builder
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, arguments[0], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}
