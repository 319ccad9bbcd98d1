package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"keyturn/testsuite/temporalserver"
)

const (
	certificates = "/etc/ssl/certs/ca-certificates.crt"
	// modules is where the stand-in for Go's image keeps its module proxy.
	modules = "/modules"
)

// fillGolang puts in this machine's Go, a shell for RUN, and the modules as a
// proxy of files, so that `go mod download` does what it does anywhere.
func fillGolang(ctx context.Context, files *tree) error {
	goRoot, err := output(ctx, "go", "env", "GOROOT")
	if err != nil {
		return err
	}
	proxy, err := downloadModules(ctx)
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Dir(filepath.Dir(filepath.Dir(proxy))))
	files.folder("/tmp", 0, 0o1777)
	files.folder("/root", 0, 0o700)
	files.folder("/go", 0, 0o777)
	files.copyFile(certificates, certificates)
	files.copyProgram(ctx, "/bin/sh", "/bin/sh")
	files.copyFolder(goRoot, "/usr/local/go")
	files.copyFolder(proxy, modules)
	return nil
}

// downloadModules puts what `go mod download` downloads into a folder of its
// own, from this machine's module cache as far as it is there.
func downloadModules(ctx context.Context) (proxy string, err error) {
	cache, err := output(ctx, "go", "env", "GOMODCACHE")
	if err != nil {
		return "", err
	}
	proxies, err := output(ctx, "go", "env", "GOPROXY")
	if err != nil {
		return "", err
	}
	folder, err := os.MkdirTemp("", "keyturn-standins-")
	if err != nil {
		return "", err
	}
	command := exec.CommandContext(ctx, "go", "mod", "download")
	command.Env = append(os.Environ(),
		// Writable, so that it can be removed.
		"GOFLAGS=-modcacherw", "GOMODCACHE="+filepath.Join(folder, "modules"),
		"GOPROXY=file://"+filepath.Join(cache, "cache", "download")+","+proxies)
	command.Stderr = os.Stderr
	if err := command.Run(); err != nil {
		_ = os.RemoveAll(folder)
		return "", err
	}
	return filepath.Join(folder, "modules", "cache", "download"), nil
}

// fillDistroless puts in what distroless/static has: certificates, time zones,
// and a user without rights.
func fillDistroless(_ context.Context, files *tree) error {
	const nonroot = 65532
	files.text("/etc/passwd", "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")
	files.text("/etc/group", "root:x:0:\nnonroot:x:65532:\n")
	files.folder("/home/nonroot", nonroot, 0o700)
	files.folder("/tmp", 0, 0o1777)
	files.copyFile(certificates, certificates)
	files.copyFolder("/usr/share/zoneinfo", "/usr/share/zoneinfo")
	return nil
}

// fillTemporal puts in the pinned Temporal tool with its libraries, and the
// user of the real image.
func fillTemporal(ctx context.Context, files *tree) error {
	const user = 1000
	executable, err := temporalserver.Executable(ctx, func(string) {})
	if err != nil {
		return err
	}
	files.text("/etc/passwd", "root:x:0:0:root:/root:/sbin/nologin\ntemporal:x:1000:1000::/home/temporal:/sbin/nologin\n")
	files.text("/etc/group", "root:x:0:\ntemporal:x:1000:\n")
	files.folder("/home/temporal", user, 0o755)
	files.folder("/tmp", 0, 0o1777)
	files.copyFile(certificates, certificates)
	files.copyProgram(ctx, executable, "/usr/local/bin/temporal")
	return nil
}

// library is a path in what ldd writes.
var library = regexp.MustCompile(`(/\S+) \(0x`)

// copyProgram copies a program and the libraries that it is linked with.
func (t *tree) copyProgram(ctx context.Context, from, to string) {
	t.copyFile(from, to)
	if t.err != nil {
		return
	}
	// Of a static program, ldd says so and fails.
	linked, err := exec.CommandContext(ctx, "ldd", from).CombinedOutput()
	if err != nil && !strings.Contains(string(linked), "not a dynamic executable") {
		t.err = err
		return
	}
	for _, found := range library.FindAllStringSubmatch(string(linked), -1) {
		t.copyFile(found[1], found[1])
	}
}
