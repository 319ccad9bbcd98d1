package main

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"keyturn/internal/ledger"
	"keyturn/internal/setting"
	"keyturn/internal/temporalclient"
	"keyturn/worker/rotationworker"
)

// What is shipped for those who run the worker.
const (
	deployFile   = "../docs/deploy.md"
	manifestFile = "../deploy/kubernetes.yml"
	unitFile     = "../deploy/keyturn-worker.service"
	composeFile  = "../docker-compose.yml"
)

var (
	settingName = regexp.MustCompile(`\b(?:OPS_MANAGER|KMIP|KEYTURN|TEMPORAL)_[A-Z_]*[A-Z]\b`)
	tableRow    = regexp.MustCompile(`(?m)^\| (.*?) \|`)
)

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

// settingsIn are the settings that a text speaks of.
func settingsIn(text string) []string {
	names := settingName.FindAllString(text, -1)
	slices.Sort(names)
	return slices.Compact(names)
}

// knownSettings are those that `worker --help` lists.
func knownSettings(t *testing.T) []string {
	t.Helper()
	var stdout bytes.Buffer
	require.Zero(t, execute([]string{"--help"}, setting.Environment{}, &stdout, io.Discard))
	names := settingsIn(strings.ReplaceAll(stdout.String(), "_DATA", ""))
	require.NotEmpty(t, names)
	return names
}

func TestDeployPageListsTheWorkersSettings(t *testing.T) {
	_, section, found := strings.Cut(readText(t, deployFile), "\n## Settings\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n### ")
	var listed []string
	for _, row := range tableRow.FindAllStringSubmatch(section, -1) {
		listed = append(listed, settingsIn(row[1])...)
	}
	assert.ElementsMatch(t, knownSettings(t), listed, "each of them, once")
}

// The page speaks of no setting that neither the worker nor the compose file
// has.
func TestDeployPageSpeaksOfKnownSettings(t *testing.T) {
	known := append(knownSettings(t), settingsIn(readText(t, composeFile))...)
	for _, name := range settingsIn(readText(t, deployFile)) {
		assert.Contains(t, known, name)
	}
}

// The parts of the manifest that have to fit the worker and each other. That it
// is as Kubernetes wants it, tools/manifests checks.
type (
	manifest struct {
		Kind string            `yaml:"kind"`
		Data map[string]string `yaml:"data"`
		Spec struct {
			Selector struct {
				MatchLabels map[string]string `yaml:"matchLabels"`
			} `yaml:"selector"`
			PodSelector struct {
				MatchLabels map[string]string `yaml:"matchLabels"`
			} `yaml:"podSelector"`
			Template struct {
				Metadata struct {
					Labels map[string]string `yaml:"labels"`
				} `yaml:"metadata"`
				Spec podSpec `yaml:"spec"`
			} `yaml:"template"`
			Ingress []policyRule `yaml:"ingress"`
			Egress  []policyRule `yaml:"egress"`
		} `yaml:"spec"`
	}
	podSpec struct {
		GracePeriod int         `yaml:"terminationGracePeriodSeconds"`
		Containers  []container `yaml:"containers"`
	}
	container struct {
		Env []struct {
			Name string `yaml:"name"`
		} `yaml:"env"`
		EnvFrom []map[string]any `yaml:"envFrom"`
		Ports   []struct {
			Name          string `yaml:"name"`
			ContainerPort int    `yaml:"containerPort"`
		} `yaml:"ports"`
		LivenessProbe  probe `yaml:"livenessProbe"`
		ReadinessProbe probe `yaml:"readinessProbe"`
		VolumeMounts   []struct {
			MountPath string `yaml:"mountPath"`
		} `yaml:"volumeMounts"`
	}
	probe struct {
		HTTPGet struct {
			Path string `yaml:"path"`
			Port string `yaml:"port"`
		} `yaml:"httpGet"`
	}
	policyRule struct {
		Ports []struct {
			Port string `yaml:"port"`
		} `yaml:"ports"`
	}
)

func readManifest(t *testing.T) map[string]manifest {
	t.Helper()
	objects := map[string]manifest{}
	documents := yaml.NewDecoder(strings.NewReader(readText(t, manifestFile)))
	for {
		var object manifest
		err := documents.Decode(&object)
		if errors.Is(err, io.EOF) {
			return objects
		}
		require.NoError(t, err)
		require.NotContains(t, objects, object.Kind)
		objects[object.Kind] = object
	}
}

func TestManifestConfiguresTheWorker(t *testing.T) {
	isolateFromUser(t)
	objects := readManifest(t)
	settings := setting.Environment(objects["ConfigMap"].Data)
	assert.Subset(t, knownSettings(t), slices.Collect(maps.Keys(settings)))
	pod := objects["Deployment"].Spec.Template.Spec
	require.Len(t, pod.Containers, 1)
	worker := pod.Containers[0]
	assert.Empty(t, worker.Env, "the settings are in the ConfigMap")
	assert.Len(t, worker.EnvFrom, 1)
	assert.Greater(t, time.Duration(pod.GracePeriod)*time.Second, rotationworker.StopTimeout+shutdownTimeout)

	require.Len(t, worker.VolumeMounts, 1)
	command := regexp.MustCompile(`kubectl create secret generic .*`).FindString(readText(t, deployFile))
	for _, variable := range []string{"OPS_MANAGER_PRIVATE_KEY_FILE", ledger.PasswordFileVariable} {
		file := settings[variable]
		assert.Equal(t, worker.VolumeMounts[0].MountPath, path.Dir(file))
		assert.Contains(t, command, "--from-file="+path.Base(file)+"=", "the file that docs/deploy.md puts into the Secret")
		settings[variable] = writeFile(t, path.Base(file), secret)
	}
	_, err := readSettings(settings)
	assert.NoError(t, err)
}

func TestManifestsPortsAndPathsAgree(t *testing.T) {
	objects := readManifest(t)
	settings := objects["ConfigMap"].Data
	worker := objects["Deployment"].Spec.Template.Spec.Containers[0]
	require.Len(t, worker.Ports, 1)
	port := worker.Ports[0]
	_, listens, err := net.SplitHostPort(settings[listenVariable])
	require.NoError(t, err)
	assert.Equal(t, listens, strconv.Itoa(port.ContainerPort))
	for probed, path := range map[probe]string{worker.LivenessProbe: healthPath, worker.ReadinessProbe: readyPath} {
		assert.Equal(t, path, probed.HTTPGet.Path)
		assert.Equal(t, port.Name, probed.HTTPGet.Port)
	}

	policy := objects["NetworkPolicy"].Spec
	assert.Equal(t, []string{port.Name}, portsOf(policy.Ingress))
	opsManager, err := url.Parse(settings["OPS_MANAGER_URL"])
	require.NoError(t, err)
	_, temporal, err := net.SplitHostPort(settings[temporalclient.AddressVariable])
	require.NoError(t, err)
	database, err := url.Parse(settings[ledger.URLVariable])
	require.NoError(t, err)
	postgres := cmp.Or(database.Port(), "5432")
	assert.ElementsMatch(t, []string{"53", "53", temporal, opsManager.Port(), postgres}, portsOf(policy.Egress))

	labels := objects["Deployment"].Spec.Template.Metadata.Labels
	require.NotEmpty(t, labels)
	assert.Equal(t, labels, policy.PodSelector.MatchLabels)
	assert.Equal(t, labels, objects["PodDisruptionBudget"].Spec.Selector.MatchLabels)
}

func portsOf(rules []policyRule) (ports []string) {
	for _, rule := range rules {
		for _, open := range rule.Ports {
			ports = append(ports, open.Port)
		}
	}
	return ports
}

// unitValues are the values of a key in the systemd unit, in their order.
func unitValues(t *testing.T, key string) (values []string) {
	t.Helper()
	for _, match := range regexp.MustCompile(`(?m)^`+key+`=(.*)$`).FindAllStringSubmatch(readText(t, unitFile), -1) {
		values = append(values, match[1])
	}
	require.NotEmpty(t, values, key)
	return values
}

func TestUnitConfiguresTheWorker(t *testing.T) {
	isolateFromUser(t)
	seconds, err := strconv.Atoi(unitValues(t, "TimeoutStopSec")[0])
	require.NoError(t, err)
	assert.Greater(t, time.Duration(seconds)*time.Second, rotationworker.StopTimeout+shutdownTimeout)

	page := readText(t, deployFile)
	assert.Contains(t, page, unitValues(t, "ExecStart")[0]+"\n", "where docs/deploy.md installs the program")
	credential, file, _ := strings.Cut(unitValues(t, "LoadCredential")[0], ":")
	assert.Contains(t, page, file+"\n", "where docs/deploy.md installs the key")
	settings := setting.NewEnvironment(unitValues(t, "Environment"))
	require.Equal(t, "%d/"+credential, settings["OPS_MANAGER_PRIVATE_KEY_FILE"])
	settings["OPS_MANAGER_PRIVATE_KEY_FILE"] = writeFile(t, credential, secret)

	_, rest, found := strings.Cut(page, "cat > "+unitValues(t, "EnvironmentFile")[0]+" <<END\n")
	require.True(t, found, "docs/deploy.md shows what is in the environment's file")
	lines, _, _ := strings.Cut(rest, "\nEND\n")
	maps.Copy(settings, setting.NewEnvironment(strings.Split(lines, "\n")))
	assert.Subset(t, knownSettings(t), slices.Collect(maps.Keys(settings)))
	_, err = readSettings(settings)
	assert.NoError(t, err)
}

// The examples of monitoring reach the workers of the examples of deployment, and
// get in no one's way: 9090 is Prometheus' own port.
func TestMonitoringExampleReachesTheWorkers(t *testing.T) {
	page := readText(t, deployFile)
	_, section, found := strings.Cut(page, "\n## Monitoring\n")
	require.True(t, found)
	example := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(section)
	require.NotNil(t, example)
	var config struct {
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			JobName       string `yaml:"job_name"`
			StaticConfigs []struct {
				Targets []string `yaml:"targets"`
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	require.NoError(t, yaml.Unmarshal([]byte(example[1]), &config))
	assert.Equal(t, []string{path.Base(alertsFile)}, config.RuleFiles)
	require.Len(t, config.ScrapeConfigs, 1)
	require.Len(t, config.ScrapeConfigs[0].StaticConfigs, 1)

	unit := regexp.MustCompile(`(?m)^`+listenVariable+`=(.*)$`).FindAllStringSubmatch(page, -1)
	require.Len(t, unit, 1, "the file that systemd's unit reads")
	var compose struct {
		Services map[string]struct {
			Environment map[string]string `yaml:"environment"`
		} `yaml:"services"`
	}
	require.NoError(t, yaml.Unmarshal([]byte(readText(t, composeFile)), &compose))
	addresses := map[string]string{
		"systemd": unit[0][1], "Kubernetes": readManifest(t)["ConfigMap"].Data[listenVariable],
		"Docker Compose": compose.Services["worker"].Environment[listenVariable],
	}
	for where, address := range addresses {
		host, port, err := net.SplitHostPort(address)
		require.NoError(t, err, where)
		assert.Empty(t, host, "%s: Prometheus is on another machine", where)
		assert.NotEqual(t, "9090", port, where)
		for _, target := range config.ScrapeConfigs[0].StaticConfigs[0].Targets {
			_, scraped, err := net.SplitHostPort(target)
			require.NoError(t, err)
			assert.Equal(t, port, scraped, "%s: the port of %s", where, target)
		}
	}
	if *promtool {
		folder := t.TempDir()
		require.NoError(t, os.WriteFile(path.Join(folder, "prometheus.yml"), []byte(example[1]), 0o600))
		require.NoError(t, os.WriteFile(path.Join(folder, path.Base(alertsFile)), []byte(readText(t, alertsFile)), 0o600))
		out, err := exec.Command("promtool", "check", "config", path.Join(folder, "prometheus.yml")).CombinedOutput()
		assert.NoError(t, err, "%s", out)
	}
}

// The examples in TOML are taken as they stand, but for the files they name.
func TestDeployPagesFilesAreTaken(t *testing.T) {
	isolateFromUser(t)
	examples := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(readText(t, deployFile), -1)
	require.Len(t, examples, 2)
	certificate, key := writeCertificate(t)
	folder := t.TempDir()
	for name, text := range map[string]string{
		"connections.toml": examples[0][1], "default-private-key": secret, "emea-private-key": secret, "emea-ca.pem": readText(t, certificate),
		"emea-kmip-ca.pem": readText(t, certificate), "emea-kmip-client.pem": readText(t, certificate), "emea-kmip-client.key": readText(t, key),
		"temporal.toml": strings.NewReplacer("/etc/keyturn/temporal-ca.pem", certificate, "/etc/keyturn/client.pem", certificate,
			"/etc/keyturn/client.key", key).Replace(examples[1][1]),
	} {
		require.NoError(t, os.WriteFile(path.Join(folder, name), []byte(text), 0o600))
	}
	read, err := readSettings(setting.Environment{
		connectionsFileVariable:           path.Join(folder, "connections.toml"),
		temporalclient.ConfigFileVariable: path.Join(folder, "temporal.toml"), temporalclient.ProfileVariable: "prod",
	})
	require.NoError(t, err)
	require.Len(t, read.connections, 2)
	assert.Nil(t, read.connections[0].kmip)
	assert.NotNil(t, read.connections[1].kmip)
	assert.Equal(t, "rotations", read.temporal.Namespace)
	// A key that is misspelt there is passed over.
	tls := read.temporal.ConnectionOptions.TLS
	require.NotNil(t, tls)
	assert.NotNil(t, tls.RootCAs)
	assert.Equal(t, "temporal.example.net", tls.ServerName)
	assert.Len(t, tls.Certificates, 1)
}
