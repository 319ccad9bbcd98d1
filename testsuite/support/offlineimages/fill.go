package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"keyturn/testsuite/support/temporalserver"
)

const (
	certificates = "/etc/ssl/certs/ca-certificates.crt"
	// modules is the module proxy in the replacement of Go's image.
	modules = "/modules"
)

// fillGolang adds this machine's Go, a shell for RUN, and the modules as a file
// proxy, so that `go mod download` works as usual.
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

// downloadModules downloads the modules into a directory of its own, from this
// machine's module cache where possible.
func downloadModules(ctx context.Context) (proxy string, err error) {
	cache, err := output(ctx, "go", "env", "GOMODCACHE")
	if err != nil {
		return "", err
	}
	proxies, err := output(ctx, "go", "env", "GOPROXY")
	if err != nil {
		return "", err
	}
	folder, err := os.MkdirTemp("", "keyturn-offlineimages-")
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

// fillDistroless adds what distroless/static has: certificates, time zones, and
// an unprivileged user.
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

// fillTemporal adds the pinned Temporal CLI with its libraries, and the user of
// the real image.
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

// postgresEntry does on an empty volume what that of the real image does, as
// far as docker-compose.yml uses it.
const postgresEntry = `set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	initdb --username "$POSTGRES_USER" --auth-local trust --auth-host trust
	echo "host all all all $POSTGRES_HOST_AUTH_METHOD" >> "$PGDATA/pg_hba.conf"
	echo "CREATE DATABASE $POSTGRES_USER" | postgres --single -j postgres
fi
exec "$@"
`

// The directories of PostgreSQL in the replacement of its image.
const (
	postgresPrograms   = "/usr/local/postgresql/bin"
	postgresLibraries  = "/usr/local/postgresql/lib" // PostgreSQL finds it beside its programs
	postgresData       = "/var/lib/postgresql/data"
	postgresEntryPoint = "/usr/local/bin/docker-entrypoint.sh"
)

// fillPostgres adds this machine's PostgreSQL, whatever its version, a shell, and
// the user of the real image.
func fillPostgres(ctx context.Context, files *tree) error {
	const user = 999
	installed, err := filepath.Glob("/usr/lib/postgresql/*")
	if err != nil {
		return err
	}
	if len(installed) == 0 {
		return errors.New("PostgreSQL is not installed (Debian: apt-get install postgresql)")
	}
	from := installed[len(installed)-1]
	share := "/usr/share/postgresql/" + filepath.Base(from)
	files.text("/etc/passwd", "root:x:0:0:root:/root:/sbin/nologin\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n")
	files.text("/etc/group", "root:x:0:\npostgres:x:999:\n")
	files.folder("/tmp", 0, 0o1777)
	files.folder("/var/run/postgresql", user, 0o3777)
	files.folder(postgresData, user, 0o1777)
	files.text(postgresEntryPoint, postgresEntry)
	files.copyProgram(ctx, "/bin/sh", "/bin/sh")
	for _, program := range []string{"createdb", "dropdb", "initdb", "pg_dump", "pg_isready", "pg_restore", "postgres", "psql"} {
		files.copyProgram(ctx, from+"/bin/"+program, postgresPrograms+"/"+program)
	}
	for _, library := range []string{"dict_snowball.so", "plpgsql.so"} {
		files.copyFile(from+"/lib/"+library, postgresLibraries+"/"+library)
	}
	files.copyFolder(share, share)
	files.copyFolder("/usr/lib/locale/C.utf8", "/usr/lib/locale/C.utf8")
	files.copyFolder("/usr/share/zoneinfo", "/usr/share/zoneinfo")
	return nil
}

// library is a path in the output of ldd.
var library = regexp.MustCompile(`(/\S+) \(0x`)

// copyProgram copies a program and its shared libraries.
func (t *tree) copyProgram(ctx context.Context, from, to string) {
	t.copyFile(from, to)
	if t.err != nil {
		return
	}
	// ldd fails for a static program.
	linked, err := exec.CommandContext(ctx, "ldd", from).CombinedOutput()
	if err != nil && !strings.Contains(string(linked), "not a dynamic executable") {
		t.err = err
		return
	}
	for _, found := range library.FindAllStringSubmatch(string(linked), -1) {
		t.copyFile(found[1], found[1])
	}
}
