package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"keyturn/activities"
	"keyturn/internal/ledger"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
	"keyturn/testsuite/support/temporalserver"
	"keyturn/workflows"
)

// What is shipped for those who watch the worker.
const (
	documentationFile = "../docs/metrics.md"
	runbookFile       = "../docs/operations.md"
	eventsFile        = "../docs/events.md"
	alertsFile        = "../deploy/alerts.yml"
	alertsTestFile    = "../deploy/alerts_test.yml"
	overdueTestFile   = "../deploy/overdue_test.yml"
	dashboardFile     = "../deploy/grafana-dashboard.json"
)

// promtool is Prometheus' own tool, which `go test` does without: go test
// ./worker -run Promtool -promtool.
var promtool = flag.Bool("promtool", false, "check rules and dashboard with promtool, which must be installed")

// documented is a row of the table in docs/metrics.md.
type documented struct {
	kind, meaning string
	labels        []string
}

var (
	metricRow   = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (\\w+) \\| (.*?) ?\\| (.*) \\|$")
	metricName  = regexp.MustCompile(`\b(?:keyturn|temporal|go|process)_[a-z_]+\b`)
	inBackticks = regexp.MustCompile("`([^`]+)`")
)

func readDocumentation(t *testing.T) map[string]documented {
	t.Helper()
	text, err := os.ReadFile(documentationFile)
	require.NoError(t, err)
	rows := map[string]documented{}
	for _, match := range metricRow.FindAllStringSubmatch(string(text), -1) {
		require.NotContains(t, rows, match[1], "duplicate row")
		row := documented{kind: match[2], meaning: match[4], labels: []string{}}
		for _, name := range inBackticks.FindAllStringSubmatch(match[3], -1) {
			row.labels = append(row.labels, name[1])
		}
		slices.Sort(row.labels)
		rows[match[1]] = row
	}
	require.Equal(t, strings.Count(string(text), "\n| `"), len(rows), "each row of the table must be understood")
	return rows
}

var describedLabels = regexp.MustCompile("((?:`[a-z_]+`, )*`[a-z_]+`):")

// What the page says of labels is of those that its table has.
func TestDescribedLabelsAreInTheTable(t *testing.T) {
	var known []string
	for _, row := range readDocumentation(t) {
		known = append(known, row.labels...)
	}
	_, section, found := strings.Cut(readText(t, documentationFile), "\n## Labels\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	descriptions := describedLabels.FindAllStringSubmatch(section, -1)
	require.NotEmpty(t, descriptions)
	for _, described := range descriptions {
		for _, name := range inBackticks.FindAllStringSubmatch(described[1], -1) {
			assert.Contains(t, known, name[1])
		}
	}
}

// requireDocumented compares what a worker exports with what docs/metrics.md
// says of it, and that with what alerts and dashboard use.
func requireDocumented(t *testing.T, exported families) {
	t.Helper()
	rows := readDocumentation(t)
	for name, family := range exported {
		if !strings.HasPrefix(name, "keyturn_") {
			continue
		}
		row, found := rows[name]
		if !assert.True(t, found, "%s is exported, and not documented", name) {
			continue
		}
		assert.Equal(t, row.meaning, family.GetHelp(), name)
		assert.Equal(t, row.labels, labelsOf(family), name)
	}
	used := metricsInUse(t)
	for name, row := range rows {
		family := exported[name]
		if !assert.NotNil(t, family, "%s is documented, and not exported", name) {
			continue
		}
		assert.Equal(t, row.kind, strings.ToLower(family.GetType().String()), name)
		assert.Subset(t, labelsOf(family), row.labels, name)
		if strings.HasPrefix(name, "temporal_") {
			assert.Contains(t, used, name, "it is documented, and neither alert nor dashboard uses it")
		}
	}
	for name := range used {
		assert.Contains(t, exported, name, "an alert or the dashboard uses it")
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			assert.Contains(t, rows, name, "an alert or the dashboard uses it")
		}
	}
	counts := map[string]int{}
	for name := range exported {
		prefix, _, _ := strings.Cut(name, "_")
		counts[prefix]++
	}
	t.Logf("families exported: %v; used by alerts and dashboard: %d", counts, len(used))
}

func labelsOf(family *dto.MetricFamily) []string {
	names := map[string]bool{}
	for _, series := range family.GetMetric() {
		for _, pair := range series.GetLabel() {
			names[pair.GetName()] = true
		}
	}
	sorted := slices.Sorted(maps.Keys(names))
	return append([]string{}, sorted...)
}

// metricsInUse are the families that alerts and dashboard query.
func metricsInUse(t *testing.T) map[string]bool {
	t.Helper()
	used := map[string]bool{}
	expressions := slices.Concat(expressionsOf(readAlerts(t)), dashboardExpressions(readDashboard(t)))
	for _, expression := range expressions {
		for _, name := range metricName.FindAllString(withoutRecords(expression), -1) {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				name = strings.TrimSuffix(name, suffix)
			}
			used[name] = true
		}
	}
	require.NotEmpty(t, used)
	return used
}

// withoutRecords leaves out the names of recording rules, and labels' values.
func withoutRecords(expression string) string {
	return regexp.MustCompile(`keyturn:[a-z_]+(:[a-z_]+)?|"[^"]*"`).ReplaceAllString(expression, "")
}

type rule struct {
	Record, Alert, Expr string
	Labels, Annotations map[string]string
}

func readAlerts(t *testing.T) (rules []rule) {
	t.Helper()
	text, err := os.ReadFile(alertsFile)
	require.NoError(t, err)
	var file struct{ Groups []struct{ Rules []rule } }
	require.NoError(t, yaml.Unmarshal(text, &file))
	for _, group := range file.Groups {
		rules = append(rules, group.Rules...)
	}
	require.NotEmpty(t, rules)
	return rules
}

func expressionsOf(rules []rule) (expressions []string) {
	for _, r := range rules {
		expressions = append(expressions, r.Expr)
	}
	return expressions
}

var headline = regexp.MustCompile(`(?m)^#+ (.+)$`)

func TestAlertsSayWhatToDo(t *testing.T) {
	runbook, err := os.ReadFile(runbookFile)
	require.NoError(t, err)
	anchors := map[string]bool{}
	for _, match := range headline.FindAllStringSubmatch(string(runbook), -1) {
		anchors[strings.ReplaceAll(strings.ToLower(match[1]), " ", "-")] = true
	}
	for _, r := range readAlerts(t) {
		if r.Record != "" {
			continue
		}
		assert.NotEmpty(t, r.Annotations["summary"], r.Alert)
		assert.NotEmpty(t, r.Annotations["description"], r.Alert)
		assert.Contains(t, []string{"info", "warning", "critical"}, r.Labels["severity"], r.Alert)
		section, inRunbook := strings.CutPrefix(r.Annotations["runbook_url"], "docs/operations.md#")
		assert.True(t, inRunbook && anchors[section], "%s: %q is no section of the runbook", r.Alert, section)
	}
}

var (
	eventRow     = regexp.MustCompile("(?m)^\\| `(keyturn\\.[a-z.-]+)` \\|")
	eventExample = regexp.MustCompile("(?s)```http\nPOST .*?\nWebhook-Id: (\\S+)\n.*?\n\n(\\{.*?\n\\})\n```")
)

// The page has every type of event, and an example that is one.
func TestDocumentedEvents(t *testing.T) {
	page := readText(t, eventsFile)
	var listed []activities.EventType
	for _, row := range eventRow.FindAllStringSubmatch(page, -1) {
		listed = append(listed, activities.EventType(row[1]))
	}
	assert.Equal(t, activities.EventTypes, listed)
	example := eventExample.FindStringSubmatch(page)
	require.NotNil(t, example)
	var shown event.Event
	require.NoError(t, json.Unmarshal([]byte(example[2]), &shown))
	require.NoError(t, shown.Validate())
	assert.Equal(t, example[1], shown.ID())
	assert.Contains(t, listed, activities.EventType(shown.Type()))
	var progress struct {
		workflows.Progress
		URL string `json:"url"`
	}
	decoder := json.NewDecoder(bytes.NewReader(shown.Data()))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&progress))
	assert.True(t, strings.HasPrefix(progress.URL, "https://temporal-ui.example.net"+shown.Source()+"/"), progress.URL)
}

// promtool's tests have each alert fire, and be silent.
func TestEachAlertIsTried(t *testing.T) {
	type tried struct{ fires, isSilent bool }
	alerts := map[string]tried{}
	for _, name := range []string{alertsTestFile, overdueTestFile} {
		var file struct {
			Tests []struct {
				Alerts []struct {
					Name     string `yaml:"alertname"`
					Expected []any  `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			}
		}
		require.NoError(t, yaml.Unmarshal([]byte(readText(t, name)), &file))
		for _, test := range file.Tests {
			for _, at := range test.Alerts {
				was := alerts[at.Name]
				alerts[at.Name] = tried{was.fires || len(at.Expected) > 0, was.isSilent || len(at.Expected) == 0}
			}
		}
	}
	for _, r := range readAlerts(t) {
		if r.Alert != "" {
			assert.Equal(t, tried{true, true}, alerts[r.Alert], r.Alert)
		}
	}
}

type dashboard struct {
	SchemaVersion int
	Templating    struct{ List []struct{ Name, Type string } }
	Panels        []panel
}

type panel struct {
	ID         int
	Type       string
	Title      string
	Datasource struct{ UID string }
	GridPos    struct{ X, Y, W, H int }
	Targets    []struct{ Expr string }
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	require.NoError(t, err)
	var d dashboard
	require.NoError(t, json.Unmarshal(text, &d))
	require.NotEmpty(t, d.Panels)
	return d
}

func dashboardExpressions(d dashboard) (expressions []string) {
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			expressions = append(expressions, target.Expr)
		}
	}
	return expressions
}

func TestDashboardFitsTogether(t *testing.T) {
	d := readDashboard(t)
	assert.GreaterOrEqual(t, d.SchemaVersion, 39)
	require.NotEmpty(t, d.Templating.List)
	assert.Equal(t, "datasource", d.Templating.List[0].Type)
	variables := map[string]bool{"__rate_interval": true, "__range": true}
	for _, variable := range d.Templating.List {
		variables[variable.Name] = true
	}
	for _, expression := range dashboardExpressions(d) {
		for _, match := range regexp.MustCompile(`\$(\w+)`).FindAllStringSubmatch(expression, -1) {
			assert.True(t, variables[match[1]], "%s is no variable: %s", match[1], expression)
		}
	}
	ids, taken := map[int]bool{}, map[string]string{}
	for _, p := range d.Panels {
		assert.False(t, ids[p.ID], "%s: its id is another's", p.Title)
		ids[p.ID] = true
		if p.Type != "row" {
			assert.NotEmpty(t, p.Targets, p.Title)
			assert.Equal(t, "${datasource}", p.Datasource.UID, p.Title)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				cell := fmt.Sprint(x, ",", y)
				assert.Empty(t, taken[cell], "%s lies on another panel", p.Title)
				taken[cell] = p.Title
			}
		}
	}
}

func TestPromtoolTakesRulesAndDashboard(t *testing.T) {
	t.Parallel()
	if !*promtool {
		t.Skip("-promtool is not given")
	}
	run := func(arguments ...string) {
		out, err := exec.Command("promtool", arguments...).CombinedOutput()
		assert.NoError(t, err, "promtool %s: %s", strings.Join(arguments, " "), out)
		t.Logf("promtool %s: %s", strings.Join(arguments, " "), out)
	}
	run("check", "rules", alertsFile)
	run("test", "rules", alertsTestFile, overdueTestFile)
	// promtool knows no dashboards: their queries are rules to it.
	var rules strings.Builder
	rules.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	interval := strings.NewReplacer("$__rate_interval", "5m", "$__range", "6h", "$job", ".*", "$connection", ".*")
	for i, expression := range dashboardExpressions(readDashboard(t)) {
		fmt.Fprintf(&rules, "      - {record: 'panel:%d', expr: %q}\n", i, interval.Replace(expression))
	}
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	require.NoError(t, os.WriteFile(file, []byte(rules.String()), 0o600))
	run("check", "rules", file)
}

// Names, units, types and texts of keyturn's own metrics keep to Prometheus'
// conventions; the SDK's have no texts.
func TestPromtoolTakesMetrics(t *testing.T) {
	t.Parallel()
	if !*promtool {
		t.Skip("-promtool is not given")
	}
	s := fixture.NewServerOn(t, temporalserver.Shared(t), simulator.Options{})
	cluster := s.OM.AddReplicaSet(s.Project, "audit")
	env := monitoredEnvironment(s)
	env[ledger.URLVariable] = "sqlite://" + filepath.Join(t.TempDir(), "ledger.db")
	w := startMonitored(t, env, oftenLooking)
	s.RequireRotated(s.Start(s.Input(cluster.ID)), 1)
	addSchedule(s, "failed", s.TaskQueue, workflows.RotateClusterType, pausedByFailure)
	awaitScrape(t, w.address, "the open rotations are known", showsQuiet)
	awaitScrape(t, w.address, "the schedule that is paused is known", func(f families) bool { return f["keyturn_schedule_paused"] != nil })
	_, page := get(w.address, metricsPath)
	own := regexp.MustCompile(`(?m)^(# (HELP|TYPE) )?keyturn_.*\n`).FindAllString(page, -1)
	for name := range readDocumentation(t) {
		if strings.HasPrefix(name, "keyturn_") {
			require.Contains(t, strings.Join(own, ""), "# TYPE "+name+" ")
		}
	}
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(strings.Join(own, ""))
	out, err := check.CombinedOutput()
	assert.NoError(t, err, "promtool check metrics: %s", out)
	assert.Empty(t, string(out))
}

var (
	link        = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	codeBlock   = regexp.MustCompile("(?s)\n *```.*?\n *```")
	notInAnchor = regexp.MustCompile(`[^\w -]`)
)

// Relative links in the documentation lead to an existing file and heading.
func TestDocumentationLinks(t *testing.T) {
	pages, err := filepath.Glob("../*.md")
	require.NoError(t, err)
	more, err := filepath.Glob("../docs/*.md")
	require.NoError(t, err)
	pages = append(pages, more...)
	require.NotEmpty(t, pages)
	for _, page := range pages {
		for _, match := range link.FindAllStringSubmatch(readText(t, page), -1) {
			target, heading, _ := strings.Cut(match[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			file := page
			if target != "" {
				file = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(file); !assert.NoError(t, err, "%s: link to %s", page, match[1]) || heading == "" {
				continue
			}
			assert.Contains(t, anchorsOf(t, file), heading, "%s: link to %s", page, match[1])
		}
	}
}

// anchorsOf returns the anchors of a page's headings.
func anchorsOf(t *testing.T, page string) []string {
	t.Helper()
	var anchors []string
	for _, match := range headline.FindAllStringSubmatch(codeBlock.ReplaceAllString(readText(t, page), ""), -1) {
		plain := notInAnchor.ReplaceAllString(strings.ToLower(match[1]), "")
		anchors = append(anchors, strings.ReplaceAll(plain, " ", "-"))
	}
	return anchors
}
