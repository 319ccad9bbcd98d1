package compose

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

const root = "../.."

// The services without a profile, and those of the profiles "simulator" and
// "postgres".
var (
	always  = []string{"temporal", "worker"}
	profile = []string{"opsmanager-simulator", "kmip-simulator", "postgres"}
)

// load reads the file, after change has edited it, as `docker compose --profile
// simulator --profile postgres` does. environment is the content of .env.
func load(t *testing.T, change func(string) string, environment ...string) (*types.Project, error) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	file := filepath.Join(folder, "docker-compose.yml")
	if err := os.WriteFile(file, []byte(change(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	deploy, err := filepath.Abs(filepath.Join(root, "deploy"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(deploy, filepath.Join(folder, "deploy")); err != nil {
		t.Fatal(err)
	}
	options, err := cli.NewProjectOptions([]string{file}, cli.WithName("keyturn"), cli.WithEnv(environment), cli.WithProfiles([]string{"simulator", "postgres"}))
	if err != nil {
		t.Fatal(err)
	}
	return options.LoadProject(t.Context())
}

func unchanged(text string) string { return text }

func TestComposeFileIsValid(t *testing.T) {
	for name, environment := range map[string][]string{
		"simulator":       nil,
		"own Ops Manager": {"KEYTURN_SETTINGS=deploy/ops-manager.env", "KEYTURN_PRIVATE_KEY_FILE=/etc/keyturn/ops-manager-private-key", "KEYTURN_USER=1000", "KEYTURN_CA_FILE=/etc/ssl/private-ca.pem", "KEYTURN_KMIP_FILES=/etc/keyturn/kmip", "KEYTURN_LEDGER_FILES=/etc/keyturn/ledger", "KEYTURN_EVENTS_FILES=/etc/keyturn/events", "KEYTURN_VERSION=v1.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			project, err := load(t, unchanged, environment...)
			if err != nil {
				t.Fatal(err)
			}
			for _, problem := range problemsOf(project) {
				t.Error(problem)
			}
		})
	}
}

// Every check can fail.
func TestProblemsAreFound(t *testing.T) {
	for name, test := range map[string]struct{ old, broken, want string }{
		"misspelt key":        {"    user: ", "    users: ", "additional properties"},
		"unknown condition":   {"service_healthy", "service_well", "value must be one of"},
		"unknown service":     {"      temporal: {condition", "      temporals: {condition", "temporals"},
		"published to all":    {"127.0.0.1:${KEYTURN_UI_PORT", "${KEYTURN_UI_PORT", "published beyond 127.0.0.1"},
		"no version":          {"temporal:1.5.1", "temporal", "no version tag"},
		"latest":              {"temporal:1.5.1", "temporal:latest", "no version tag"},
		"no restart":          {"restart: unless-stopped", "restart: \"no\"", "has no restart policy unless-stopped"},
		"no health check":     {"    healthcheck:\n      test: [CMD, /usr/local/bin/keyturn-worker, health]\n", "    x-healthcheck:\n      test: [CMD, /usr/local/bin/keyturn-worker, health]\n", "no health check"},
		"secret in a setting": {"      TEMPORAL_ADDRESS:", "      OPS_MANAGER_PRIVATE_KEY: abc\n      TEMPORAL_ADDRESS:", "a secret in its environment"},
		"secret not a file":   {"    file: ${KEYTURN_PRIVATE_KEY_FILE:-deploy/simulator-private-key}", "    environment: KEY", "no file"},
		"order":               {"temporal: {condition: service_healthy}", "temporal: {condition: service_started}", "does not wait for a healthy temporal"},
		"KMIP files of root":  {"/home/nonroot\"]\n    networks: [ops-manager]\n    healthcheck:\n      test: [CMD, /usr/local/bin/kmip", "/run/kmip\"]\n    networks: [ops-manager]\n    healthcheck:\n      test: [CMD, /usr/local/bin/kmip", "kmip-simulator: cannot write into its volume"},
		"KMIP too early":      {"kmip-simulator: {condition: service_healthy}", "kmip-simulator: {condition: service_started}", "does not wait for a healthy kmip-simulator"},
		"no deployment":       {"      - --deployment-clusters=1\n", "", "has no deployment"},
		"ledger not kept":     {"\"${KEYTURN_LEDGER_DIRECTORY:-ledger}:/home/nonroot\"", "/tmp:/home/nonroot", "the ledger is on no volume"},
		"ledger elsewhere":    {"sqlite:///home/nonroot/", "sqlite:///tmp/", "the ledger is on no volume"},
		"open PostgreSQL":     {"    networks: [ledger]\n", "    networks: [ledger, ops-manager]\n", "others than the worker reach the ledger"},
		"data not kept":       {"\"temporal:/home/temporal\"", "\"/home/temporal\"", "no named volume"},
		"no profile":          {"    profiles: [simulator]\n", "", "wrong profile"},
		"writable":            {"read_only: true", "read_only: false", "is writable"},
	} {
		t.Run(name, func(t *testing.T) {
			project, err := load(t, func(text string) string {
				broken := strings.Replace(text, test.old, test.broken, 1)
				if broken == text {
					t.Fatalf("the file does not contain %q", test.old)
				}
				return broken
			})
			var found []string
			if err != nil {
				found = []string{err.Error()}
			} else {
				found = problemsOf(project)
			}
			if !slices.ContainsFunc(found, func(problem string) bool { return strings.Contains(problem, test.want) }) {
				t.Errorf("found %q, want one that contains %q", found, test.want)
			}
		})
	}
}

// problemsOf returns what Compose accepts and keyturn does not.
func problemsOf(project *types.Project) (problems []string) {
	names := project.ServiceNames()
	slices.Sort(names)
	if want := slices.Sorted(slices.Values(slices.Concat(always, profile))); !slices.Equal(names, want) {
		problems = append(problems, "services "+strings.Join(names, " "))
	}
	for _, name := range names {
		for _, problem := range serviceProblems(project.Services[name]) {
			problems = append(problems, name+": "+problem)
		}
	}
	for name, secret := range project.Secrets {
		if secret.File == "" {
			problems = append(problems, name+": no file")
		}
	}
	if on := project.Services["worker"].DependsOn["temporal"]; on.Condition != types.ServiceConditionHealthy {
		problems = append(problems, "worker: does not wait for a healthy temporal")
	}
	if !slices.ContainsFunc(project.Services["opsmanager-simulator"].Command, func(word string) bool { return strings.HasPrefix(word, "--deployment-clusters=") }) {
		problems = append(problems, "opsmanager-simulator: has no deployment")
	}
	if on := project.Services["opsmanager-simulator"].DependsOn["kmip-simulator"]; on.Condition != types.ServiceConditionHealthy {
		problems = append(problems, "opsmanager-simulator: does not wait for a healthy kmip-simulator")
	}
	problems = append(problems, ledgerProblems(project)...)
	// Docker takes the owner of a volume from the image's directory.
	if !slices.ContainsFunc(project.Services["kmip-simulator"].Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == "/home/nonroot" }) {
		problems = append(problems, "kmip-simulator: cannot write into its volume")
	}
	return problems
}

// ledgerProblems: the file must outlive the container, and PostgreSQL, which asks for
// no password, must be the worker's alone.
func ledgerProblems(project *types.Project) (problems []string) {
	url := project.Services["worker"].Environment["KEYTURN_LEDGER"]
	isKept := slices.ContainsFunc(project.Services["worker"].Volumes, func(v types.ServiceVolumeConfig) bool {
		return v.Type == types.VolumeTypeVolume && url != nil && strings.HasPrefix(*url, "sqlite://"+v.Target+"/")
	})
	if !isKept {
		problems = append(problems, "worker: the ledger is on no volume")
	}
	for name, service := range project.Services {
		_, onLedger := service.Networks["ledger"]
		others := len(service.Networks) > 1 && name == "postgres"
		if onLedger && name != "worker" && name != "postgres" || others {
			problems = append(problems, name+": others than the worker reach the ledger")
		}
	}
	return problems
}

// version matches the tag of a pinned image version.
var version = regexp.MustCompile(`:(v?[0-9]+\.[0-9]+(\.[0-9]+)?|dev)$`)

func serviceProblems(s types.ServiceConfig) (problems []string) {
	note := func(holds bool, problem string) {
		if !holds {
			problems = append(problems, problem)
		}
	}
	note(version.MatchString(s.Image), "no version tag on its image: "+s.Image)
	note(s.Restart == types.RestartPolicyUnlessStopped, "has no restart policy unless-stopped")
	note(s.HealthCheck != nil && len(s.HealthCheck.Test) > 1 && !s.HealthCheck.Disable, "no health check")
	note(s.ReadOnly, "its root file system is writable")
	note(slices.Equal(s.CapDrop, []string{"ALL"}), "has capabilities")
	note(slices.Contains(profile, s.Name) == (len(s.Profiles) > 0), "wrong profile")
	for _, port := range s.Ports {
		note(port.HostIP == "127.0.0.1", "port "+port.Published+" is published beyond 127.0.0.1")
	}
	for name, value := range s.Environment {
		private := strings.Contains(name, "PRIVATE_KEY") || strings.Contains(name, "API_KEY")
		note(!private || strings.HasSuffix(name, "_FILE") || value == nil || *value == "", "a secret in its environment: "+name)
	}
	if s.Name != "worker" { // the worker keeps no state
		note(slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Type == types.VolumeTypeVolume && v.Source != "" }), "no named volume")
	}
	return problems
}
