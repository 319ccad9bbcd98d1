package containers

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keyturn/internal/ledgerentry"
	"keyturn/workflows"
)

// The pages that say how a ledger is run with Docker Compose.
const (
	deployPage = "docs/deploy.md"
	ledgerPage = "docs/ledger.md"
)

var codeBlock = regexp.MustCompile("(?ms)^```(?:sh|sql)$\n(.*?)^```$")

// documented is the block of commands or settings on a page that contains a text.
func documented(t *testing.T, page, contains string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, page))
	require.NoError(t, err)
	var found []string
	for _, block := range codeBlock.FindAllStringSubmatch(string(text), -1) {
		if strings.Contains(block[1], contains) {
			found = append(found, block[1])
		}
	}
	require.Len(t, found, 1, "%s must have one block with %q", page, contains)
	return found[0]
}

// shell runs commands of the documentation in one directory. The function docker
// names the project, and has exec run without a terminal.
func (p project) shell(directory, commands string) string {
	p.Helper()
	repository, err := filepath.Abs(root)
	require.NoError(p, err)
	compose := strings.Join(slices.Concat(composeCommand(), p.files), " ")
	command := exec.Command("sh", "-e", "-c", `docker() {
		if [ "$1" != compose ]; then command docker "$@"; return; fi
		shift
		if [ "$1" = exec ] && [ "$2" != -T ]; then shift; set -- exec -T "$@"; fi
		(cd "`+repository+`" && command `+compose+` "$@")
	}
	`+commands)
	command.Dir = directory
	command.Env = slices.Concat(cleanEnvironment(), []string{"KEYTURN_VERSION=" + p.images.version(first)}, p.variables())
	return outputOf(p.T, command)
}

// entries of an intact ledger by workflow.
func (p project) entries() map[string][]ledgerentry.Entry {
	p.Helper()
	worker := p.containers(workerService)[0]
	output(p.T, "docker", "exec", worker, "keyturn", "ledger", "verify")
	var history struct{ Entries []ledgerentry.Entry }
	require.NoError(p, json.Unmarshal([]byte(output(p.T, "docker", "exec", worker, "keyturn", "history", "-o", "json")), &history))
	entries := map[string][]ledgerentry.Entry{}
	for _, entry := range history.Entries {
		entries[entry.WorkflowID] = append(entries[entry.WorkflowID], entry)
	}
	return entries
}

// requireEntry requires that a rotation has one entry, of a source.
func (r rotation) requireEntry(source ledgerentry.Source) {
	r.Helper()
	entries := r.entries()[r.run.GetID()]
	require.Len(r, entries, 1)
	require.Equal(r, source, entries[0].Source)
}

// restore restores a backup from before a rotation, whose entry comes back from
// Temporal. The next is the index of a cluster that nothing has rotated.
func (p project) restore(next int, backUp, restore string) {
	p.Helper()
	before := p.entries()
	require.NotEmpty(p, before)
	directory := p.TempDir()
	p.shell(directory, backUp)
	lost := p.rotate(next)
	lost.requireRotated()
	lost.requireEntry(ledgerentry.SourceWorkflow)
	p.shell(directory, restore)
	for _, worker := range p.containers(workerService) {
		p.awaitHealthy(worker)
	}
	p.await("the lost entry is added from Temporal", func() bool { return len(p.entries()[lost.run.GetID()]) > 0 })
	lost.requireEntry(ledgerentry.SourceReconciled)
	after := p.entries()
	for id, entries := range before {
		require.Equal(p, entries, after[id])
	}
	later := p.rotate(next + 1)
	later.requireRotated()
	later.requireEntry(ledgerentry.SourceWorkflow)
}

// restoreFile restores the SQLite file as documented.
func (p project) restoreFile(next int) {
	p.Helper()
	backUp := documented(p.T, ledgerPage, ".backup")
	path, _, found := strings.Cut(backUp, "\n")
	require.True(p, found)
	p.restore(next, backUp, path+"\n"+documented(p.T, ledgerPage, "install -m 600 ledger-backup.db"))
}

// rotateWithPostgres runs rotations with two workers and PostgreSQL, as documented.
func rotateWithPostgres(t *testing.T, built images) {
	t.Helper()
	settings := documented(t, deployPage, "COMPOSE_PROFILES=")
	var profile string
	lines := slices.DeleteFunc(strings.Split(settings, "\n"), func(line string) bool {
		value, isProfile := strings.CutPrefix(line, "COMPOSE_PROFILES=")
		if isProfile {
			profile = value
		}
		return isProfile
	})
	require.Equal(t, postgresService, profile)
	p := newProject(t, built, 1+moreClusters, "simulator,"+profile, lines...)
	for i, line := range strings.Split(strings.TrimSpace(documented(t, deployPage, "keyturn ledger verify")), "\n") {
		if i == 0 {
			line = strings.Replace(line, " up ", " up --no-build ", 1)
		}
		p.shell(t.TempDir(), line)
		for _, container := range append(p.containers(workerService), p.container(postgresService)) {
			p.awaitHealthy(container)
		}
	}
	p.crashPostgresAndWorker()
	p.restore(1, documented(t, ledgerPage, "pg_dump"), documented(t, ledgerPage, "pg_restore"))
	p.requirePassword(3)
}

// requirePassword gives the workers a role of their own, whose password PostgreSQL
// requires, and a signing key, as documented; the n-th cluster is rotated with them.
func (p project) requirePassword(n int) {
	p.Helper()
	grants := documented(p.T, ledgerPage, "CREATE ROLE")
	password := regexp.MustCompile(`PASSWORD '(.*)'`).FindStringSubmatch(grants)
	require.NotNil(p, password)
	files := p.TempDir()
	require.NoError(p, os.WriteFile(filepath.Join(files, "password"), []byte(password[1]+"\n"), 0o644))
	p.shell(files, `docker compose exec -T postgres psql --username keyturn --set ON_ERROR_STOP=1 keyturn <<'END'
`+grants+`END
		docker compose exec -T postgres sh -c 'printf "local all all trust\nhost all all all scram-sha-256\n" > "$PGDATA/pg_hba.conf"'
		docker compose exec -T postgres psql --username keyturn --command 'SELECT pg_reload_conf()' keyturn
		openssl genpkey -algorithm ed25519 > signing-key.pem
		chmod 644 signing-key.pem`)

	template, err := os.ReadFile(filepath.Join(root, "deploy/ops-manager.env"))
	require.NoError(p, err)
	simulated, err := os.ReadFile(filepath.Join(root, "deploy/simulator.env"))
	require.NoError(p, err)
	before, err := os.ReadFile(p.settings)
	require.NoError(p, err)
	lines := []string{
		strings.Replace(string(before), "//keyturn@", "//keyturn_worker@", 1), string(simulated),
		"KEYTURN_SETTINGS=" + p.settings, "KEYTURN_LEDGER_FILES=" + files,
	}
	for _, variable := range []string{"KEYTURN_LEDGER_PASSWORD_FILE", "KEYTURN_LEDGER_SIGNING_KEY_FILE"} {
		line := regexp.MustCompile(`(?m)^#(` + variable + `=.*)$`).FindStringSubmatch(string(template))
		require.NotNil(p, line, variable)
		lines = append(lines, line[1])
	}
	require.NoError(p, os.WriteFile(p.settings, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	p.compose(first, "up", "-d", "--no-build", "--scale", workerService+"=2", workerService)
	for _, worker := range p.containers(workerService) {
		p.awaitHealthy(worker)
	}
	r := p.rotate(n)
	r.requireRotated()
	r.requireEntry(ledgerentry.SourceWorkflow)
	require.NotEmpty(p, r.entries()[r.run.GetID()][0].SigningKeyID)
}

// crashPostgresAndWorker does so in the middle of a rotation, which two workers
// share.
func (p project) crashPostgresAndWorker() {
	p.Helper()
	p.blockPuts()
	r := p.rotate(0)
	r.awaitMiddle()
	workers := p.containers(workerService)
	require.Len(p, workers, 2)
	p.crash(postgresService)
	p.crashContainer(workers[0], workerService)
	p.releasePuts()
	r.requireRotated()
	r.requireEntry(ledgerentry.SourceWorkflow)
	require.Equal(p, workflows.OutcomeRotated, workflows.Outcome(r.entries()[r.run.GetID()][0].Outcome))
}
