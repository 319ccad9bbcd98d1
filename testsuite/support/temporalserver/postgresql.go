package temporalserver

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"text/template"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"keyturn/testsuite/support/freeport"
	"keyturn/testsuite/support/postgres"
)

const (
	// historyShards is the number that Temporal's Helm chart has by default.
	historyShards = 512
	// sqlPlugin is the driver of PostgreSQL 12 and later.
	sqlPlugin = "postgres12_pgx"
	// retention of a namespace, the least that a server accepts.
	retention = 24 * time.Hour
	// schemaTemplate and visibilityTemplate are the databases that those of each
	// server are copied from.
	schemaTemplate     = "temporal_template"
	visibilityTemplate = "visibility_template"
)

// postgresqlConfig is the configuration of Temporal's own server.
//
//go:embed postgresql.yaml
var postgresqlConfig string

// postgresqlStore runs Temporal's own server on PostgreSQL, each with databases
// of its own. Both programs are pinned in tools/temporal, with the CLI.
type postgresqlStore struct {
	database *postgres.Server
	server   string // path of Temporal's server
	folder   string // with the servers' configurations
	servers  atomic.Int32
}

// openPostgreSQL builds the server, starts PostgreSQL and makes the schema.
func openPostgreSQL(ctx context.Context) (*postgresqlStore, error) {
	tool, err := findTool()
	if err != nil {
		return nil, err
	}
	s := &postgresqlStore{}
	if s.server, err = builtTool(ctx, tool.directory, "server"); err != nil {
		return nil, err
	}
	schemaTool, err := builtTool(ctx, tool.directory, "sql")
	if err != nil {
		return nil, err
	}
	if s.folder, err = os.MkdirTemp("", "keyturn-temporal-"); err != nil {
		return nil, err
	}
	if s.database, err = postgres.Start(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	for name, schema := range map[string]string{schemaTemplate: "temporal", visibilityTemplate: "visibility"} {
		if err := s.makeSchema(ctx, schemaTool, name, schema); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

// builtTool builds a tool, or gets it from Go's build cache.
func builtTool(ctx context.Context, directory, name string) (string, error) {
	build, err := buildTool(directory, name)
	if err != nil {
		return "", err
	}
	var failures bytes.Buffer
	build.Stderr = &failures
	printed, err := build.Output()
	if err != nil {
		return "", fmt.Errorf("building Temporal's %s: %w\n%s", name, err, failures.String())
	}
	return builtPath(string(printed))
}

// makeSchema makes a database with one of Temporal's schemas.
func (s *postgresqlStore) makeSchema(ctx context.Context, schemaTool, database, schema string) error {
	for _, step := range [][]string{
		{"create-database"},
		{"setup-schema", "--version", "0.0"},
		{"update-schema", "--schema-name", "postgresql/v12/" + schema},
	} {
		connection := []string{"--plugin", sqlPlugin, "--endpoint", freeport.Loopback, "--port", strconv.Itoa(s.database.Port()), "--user", postgres.Superuser, "--database", database}
		tool := exec.CommandContext(ctx, schemaTool, append(connection, step...)...)
		tool.Env = append(toolEnvironment(), "SQL_PASSWORD="+s.database.Password())
		if printed, err := tool.CombinedOutput(); err != nil {
			return fmt.Errorf("temporal-sql-tool %v: %w\n%s", step, err, printed)
		}
	}
	return nil
}

func (s *postgresqlStore) close() error {
	var err error
	if s.database != nil {
		err = s.database.Stop()
	}
	return errors.Join(err, os.RemoveAll(s.folder))
}

// postgresqlSettings of one server.
type postgresqlSettings struct {
	Plugin, Address, User, Password string
	Schema, Visibility              string // databases
	Shards                          int
	DynamicConfig                   string // file
	IP, Public                      string
	Metrics                         int // port
	Services                        []serviceSettings
}

// serviceSettings are the ports of a service. The frontend has an HTTP port, too.
type serviceSettings struct {
	Name                   string
	GRPC, Membership, HTTP int
}

// command makes the databases of a server and returns what starts it.
func (s *postgresqlStore) command(server *Server) (path string, arguments []string, err error) {
	number := s.servers.Add(1)
	settings := postgresqlSettings{
		Shards: historyShards, IP: freeport.Loopback, Plugin: sqlPlugin,
		Address: freeport.Address(s.database.Port()), User: postgres.Superuser, Password: s.database.Password(),
		Schema: fmt.Sprintf("temporal_%d", number), Visibility: fmt.Sprintf("visibility_%d", number),
		Metrics: server.ports.metrics, Public: server.Address,
	}
	if settings.Services, err = services(server.ports); err != nil {
		return "", nil, err
	}
	for copied, from := range map[string]string{settings.Schema: schemaTemplate, settings.Visibility: visibilityTemplate} {
		if err := s.copy(from, copied); err != nil {
			return "", nil, err
		}
	}
	folder := filepath.Join(s.folder, strconv.Itoa(int(number)))
	settings.DynamicConfig = filepath.Join(folder, "dynamic.yaml")
	return s.server, []string{"--root", folder, "--config", ".", "--env", "test", "--allow-no-auth", "start"}, writeConfiguration(folder, settings, server.options.DynamicConfig)
}

// copy makes the database of a server. Temporal looks up the version of a schema
// by the name of its database.
func (s *postgresqlStore) copy(template, database string) error {
	if err := s.database.Run("postgres", fmt.Sprintf(`CREATE DATABASE %q TEMPLATE %q`, database, template)); err != nil {
		return err
	}
	return s.database.Run(database, `UPDATE schema_version SET db_name = current_database()`)
}

// services of one server, in one process.
func services(fixed ports) ([]serviceSettings, error) {
	all := []serviceSettings{{Name: "frontend", GRPC: fixed.frontend, HTTP: fixed.http}, {Name: "history"}, {Name: "matching"}, {Name: "worker"}}
	for i := range all {
		for _, port := range []*int{&all[i].GRPC, &all[i].Membership} {
			if *port != 0 {
				continue
			}
			free, err := freeport.Choose()
			if err != nil {
				return nil, err
			}
			*port = free
		}
	}
	return all, nil
}

func writeConfiguration(folder string, settings postgresqlSettings, dynamicConfig map[string]string) error {
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	var configuration bytes.Buffer
	if err := template.Must(template.New("").Parse(postgresqlConfig)).Execute(&configuration, settings); err != nil {
		return err
	}
	var dynamic bytes.Buffer
	for key, value := range dynamicConfig {
		fmt.Fprintf(&dynamic, "%s:\n- value: %s\n", key, value)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(folder, "test.yaml"), configuration.Bytes(), 0o600),
		os.WriteFile(settings.DynamicConfig, dynamic.Bytes(), 0o600),
	)
}

// registerNamespaces does what the development server does by itself.
func (s *Server) registerNamespaces(ctx context.Context, temporal client.Client) error {
	for _, namespace := range append([]string{defaultNamespace}, s.options.Namespaces...) {
		_, err := temporal.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
			Namespace: namespace, WorkflowExecutionRetentionPeriod: durationpb.New(retention),
		})
		var exists *serviceerror.NamespaceAlreadyExists
		if err != nil && !errors.As(err, &exists) {
			return err
		}
	}
	return nil
}
