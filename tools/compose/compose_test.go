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

// The services that are brought up alone, and the one of the profile.
var (
	always  = []string{"temporal", "worker"}
	profile = []string{"opsmanager-simulator"}
)

// load reads the file as `docker compose --profile simulator` does, or what is
// made of it; environment is what .env holds.
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
	options, err := cli.NewProjectOptions([]string{file}, cli.WithName("keyturn"), cli.WithEnv(environment), cli.WithProfiles([]string{"simulator"}))
	if err != nil {
		t.Fatal(err)
	}
	return options.LoadProject(t.Context())
}

func asItIs(text string) string { return text }

func TestComposeTakesTheFile(t *testing.T) {
	for name, environment := range map[string][]string{
		"simulator":       nil,
		"own Ops Manager": {"KEYTURN_SETTINGS=deploy/ops-manager.env", "KEYTURN_PRIVATE_KEY_FILE=/etc/keyturn/ops-manager-private-key", "KEYTURN_USER=1000", "KEYTURN_CA_FILE=/etc/ssl/private-ca.pem", "KEYTURN_VERSION=v1.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			project, err := load(t, asItIs, environment...)
			if err != nil {
				t.Fatal(err)
			}
			for _, fault := range faultsOf(project) {
				t.Error(fault)
			}
		})
	}
}

// Each of the checks has something to find.
func TestFaultIsFound(t *testing.T) {
	for name, test := range map[string]struct{ old, broken, want string }{
		"misspelt key":        {"    user: ", "    users: ", "additional properties"},
		"unknown condition":   {"service_healthy", "service_well", "value must be one of"},
		"no such service":     {"      temporal: {condition", "      temporals: {condition", "temporals"},
		"published to all":    {"127.0.0.1:${KEYTURN_UI_PORT", "${KEYTURN_UI_PORT", "published beyond this machine"},
		"no version":          {"temporal:1.5.1", "temporal", "no version"},
		"latest":              {"temporal:1.5.1", "temporal:latest", "no version"},
		"no restart":          {"restart: unless-stopped", "restart: \"no\"", "is not restarted"},
		"no health check":     {"    healthcheck:\n      test: [CMD, /usr/local/bin/worker, health]\n", "    x-healthcheck:\n      test: [CMD, /usr/local/bin/worker, health]\n", "no health check"},
		"secret in a setting": {"      TEMPORAL_ADDRESS:", "      OPS_MANAGER_PRIVATE_KEY: abc\n      TEMPORAL_ADDRESS:", "a secret in its environment"},
		"secret not a file":   {"    file: ${KEYTURN_PRIVATE_KEY_FILE:-deploy/simulator-private-key}", "    environment: KEY", "no file"},
		"order":               {"temporal: {condition: service_healthy}", "temporal: {condition: service_started}", "waits for no healthy temporal"},
		"data not kept":       {"\"temporal:/home/temporal\"", "\"/home/temporal\"", "no named volume"},
		"simulator by itself": {"    profiles: [simulator]\n", "", "without its profile"},
		"may write":           {"read_only: true", "read_only: false", "may write"},
	} {
		t.Run(name, func(t *testing.T) {
			project, err := load(t, func(text string) string {
				broken := strings.Replace(text, test.old, test.broken, 1)
				if broken == text {
					t.Fatalf("the file has no %q", test.old)
				}
				return broken
			})
			var found []string
			if err != nil {
				found = []string{err.Error()}
			} else {
				found = faultsOf(project)
			}
			if !slices.ContainsFunc(found, func(fault string) bool { return strings.Contains(fault, test.want) }) {
				t.Errorf("found %q, want one that says %q", found, test.want)
			}
		})
	}
}

// faultsOf are what Compose takes and keyturn does not want.
func faultsOf(project *types.Project) (faults []string) {
	names := project.ServiceNames()
	slices.Sort(names)
	if want := slices.Sorted(slices.Values(slices.Concat(always, profile))); !slices.Equal(names, want) {
		faults = append(faults, "services "+strings.Join(names, " "))
	}
	for _, name := range names {
		for _, fault := range faultsOfService(project.Services[name]) {
			faults = append(faults, name+": "+fault)
		}
	}
	for name, secret := range project.Secrets {
		if secret.File == "" {
			faults = append(faults, name+": no file")
		}
	}
	if on := project.Services["worker"].DependsOn["temporal"]; on.Condition != types.ServiceConditionHealthy {
		faults = append(faults, "worker: waits for no healthy temporal")
	}
	return faults
}

// version is a tag that says which image it is, as far as a tag can.
var version = regexp.MustCompile(`:(v?[0-9]+\.[0-9]+\.[0-9]+|dev)$`)

func faultsOfService(s types.ServiceConfig) (faults []string) {
	note := func(holds bool, fault string) {
		if !holds {
			faults = append(faults, fault)
		}
	}
	note(version.MatchString(s.Image), "no version of its image: "+s.Image)
	note(s.Restart == types.RestartPolicyUnlessStopped, "is not restarted")
	note(s.HealthCheck != nil && len(s.HealthCheck.Test) > 1 && !s.HealthCheck.Disable, "no health check")
	note(s.ReadOnly, "may write")
	note(slices.Equal(s.CapDrop, []string{"ALL"}), "has capabilities")
	note(slices.Contains(profile, s.Name) == (len(s.Profiles) > 0), "comes without its profile, or not by itself")
	for _, port := range s.Ports {
		note(port.HostIP == "127.0.0.1", "port "+port.Published+" is published beyond this machine")
	}
	for name, value := range s.Environment {
		private := strings.Contains(name, "PRIVATE_KEY") || strings.Contains(name, "API_KEY")
		note(!private || strings.HasSuffix(name, "_FILE") || value == nil || *value == "", "a secret in its environment: "+name)
	}
	if s.Name != "worker" { // which keeps nothing
		note(slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Type == types.VolumeTypeVolume && v.Source != "" }), "no named volume")
	}
	return faults
}
