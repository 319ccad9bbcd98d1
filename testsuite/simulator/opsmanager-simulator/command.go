package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyturn/testsuite/simulator"
)

// keptRequests limits the memory of a simulator that runs for days.
const keptRequests = 100_000

// settings are the program's flags.
type settings struct {
	options          simulator.Options
	listen           string
	project          string
	cluster          string
	shards, clusters int
	state            string
	tlsCert, tlsKey  string
	kmip             kmipSettings
	deployment       deploymentSettings
}

func newCommand(out io.Writer) *cobra.Command {
	s := settings{options: simulator.Options{KeepRequests: keptRequests}}
	command := &cobra.Command{
		Use:   "opsmanager-simulator",
		Short: "Run a simulated MongoDB Ops Manager",
		Long: "Run a simulated MongoDB Ops Manager with sharded clusters whose backup master keys can be rotated,\n" +
			"and with automated deployments whose processes have master keys of their own (--deployment-clusters).\n\n" +
			"The ledger, the faults and the agents are available under /simulator/ without authentication: anyone who can\n" +
			"reach the address can read and change them. Use a loopback address unless you trust the network.",
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := s.check(); err != nil {
				return err
			}
			return run(command.Context(), s, out)
		},
	}
	s.addFlags(command)
	command.AddCommand(newHealthCommand())
	command.CompletionOptions.DisableDefaultCmd = true
	return command
}

func (s *settings) addFlags(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&s.listen, "listen", "127.0.0.1:8080", "address to listen on; port 0 means a free port")
	flags.StringVar(&s.options.PublicKey, "public-key", simulator.DefaultPublicKey, "public key: the user name")
	flags.StringVar(&s.options.PrivateKey, "private-key", simulator.DefaultPrivateKey, "private key: the password, which is printed at the start")
	flags.StringVar(&s.options.PathPrefix, "path-prefix", "", "path before /api/public/v1.0")
	flags.StringVar(&s.project, "project", simulator.DefaultProjectID, "ID of the project")
	flags.StringVar(&s.cluster, "cluster", "orders", "display name of the first cluster; the others are NAME2, NAME3 and so on")
	flags.IntVar(&s.shards, "shards", 3, "shards of each cluster; 0 means replica sets")
	flags.IntVar(&s.clusters, "clusters", 1, "number of clusters")
	flags.DurationVar(&s.options.Latency, "latency", 0, "latency of each authenticated response")
	flags.DurationVar(&s.options.ShowAfter, "show-after", 0, "time until a new key is visible after a rotation")
	flags.StringVar(&s.options.ServiceVersion, "service-version", simulator.DefaultServiceVersion, "X-MongoDB-Service-Version of responses; keyturn refuses 8.0 and later as NotServed")
	flags.StringVar(&s.state, "state", "", "JSON file that stores data and rotations; if it exists, --project, --cluster, --shards and --clusters are ignored, and so are the flags of a deployment that it holds")
	flags.StringVar(&s.tlsCert, "tls-cert", "", "certificate in PEM, for https; requires --tls-key")
	flags.StringVar(&s.tlsKey, "tls-key", "", "private key in PEM, for https; requires --tls-cert")
	command.MarkFlagsRequiredTogether("tls-cert", "tls-key")
	s.deployment.addFlags(flags)
	s.kmip.addFlags(flags)
	command.MarkFlagsRequiredTogether("kmip-address", "kmip-ca", "kmip-cert", "kmip-key")
}

func (s *settings) check() error {
	switch {
	case !simulator.IsID(s.project):
		return errors.New("--project: must be 24 hex digits in lower case")
	case s.shards < 0:
		return errors.New("--shards: must not be negative")
	case s.clusters < 0:
		return errors.New("--clusters: must not be negative")
	case s.options.Latency < 0:
		return errors.New("--latency: must not be negative")
	case s.options.ShowAfter < 0:
		return errors.New("--show-after: must not be negative")
	}
	return s.deployment.check()
}

// run serves until the context ends.
func run(ctx context.Context, s settings, out io.Writer) error {
	config, err := s.tlsConfig()
	if err != nil {
		return err
	}
	if s.options.NewKey, err = s.kmip.newKey(ctx); err != nil {
		return err
	}
	om := simulator.New(s.options)
	defer om.Close()
	s.populate(om)
	restored, err := s.keepState(om)
	if err != nil {
		return err
	}
	s.deployment.populate(om, s.project)
	server, err := simulator.Listen(om, s.listen, config)
	if err != nil {
		return err
	}
	defer server.Close()
	introduce(out, server, s, restored)
	<-ctx.Done()
	return nil
}

func (s *settings) tlsConfig() (*tls.Config, error) {
	if s.tlsCert == "" {
		return nil, nil
	}
	certificate, err := tls.LoadX509KeyPair(s.tlsCert, s.tlsKey)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert, --tls-key: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}, nil
}

func (s *settings) populate(om *simulator.Simulator) {
	om.AddProject(simulator.Project{ID: s.project})
	for i := range s.clusters {
		name := s.cluster
		if i > 0 {
			name += strconv.Itoa(i + 1)
		}
		if s.shards == 0 {
			om.AddReplicaSet(s.project, name)
		} else {
			om.AddShardedCluster(s.project, name, s.shards)
		}
	}
}

func (s *settings) keepState(om *simulator.Simulator) (restored bool, err error) {
	if s.state == "" {
		return false, nil
	}
	restored, err = om.UseStateFile(s.state)
	if err != nil {
		return false, fmt.Errorf("--state: %w", err)
	}
	return restored, nil
}

// introduce prints the addresses and IDs. Its last line starts with "ready".
func introduce(out io.Writer, server *simulator.Server, s settings, restored bool) {
	began := time.Now().UTC().Format(time.RFC3339)
	fmt.Fprintf(out, "simulated Ops Manager, started %s\n", began)
	if restored {
		fmt.Fprintf(out, "state    restored from %s\n", s.state)
	}
	fmt.Fprintf(out, "address  %s\n", server.URL)
	clusters := server.Clusters()
	project := ""
	for _, c := range clusters {
		if c.ProjectID != project {
			project = c.ProjectID
			fmt.Fprintf(out, "project  %s\n", project)
		}
		switch {
		case !c.IsTopLevel():
		case c.Automated:
			fmt.Fprintf(out, "deployed %s  %s\n", c.ID, c.ClusterName)
		default:
			fmt.Fprintf(out, "cluster  %s  %s\n", c.ID, c.ClusterName)
		}
	}
	fmt.Fprintf(out, "ledger   %s/simulator/ledger\n", server.Address)
	printCall(out, server, s, clusters)
	fmt.Fprintf(out, "ready    %s\n", server.URL)
}

// printCall prints the documented call for the first component that has a key.
func printCall(out io.Writer, server *simulator.Server, s settings, clusters []simulator.Cluster) {
	for _, c := range clusters {
		if c.IsParent() || c.Automated {
			continue
		}
		trust := ""
		if s.tlsCert != "" {
			trust = "--cacert " + quoted(s.tlsCert) + " "
		}
		fmt.Fprintf(out, "rotate   curl -i %s-u %s -H \"Content-Type: application/json\" --digest -X PUT %s\n",
			trust, quoted(s.options.PublicKey+":"+s.options.PrivateKey),
			quoted(server.URL+"/api/public/v1.0/groups/"+c.ProjectID+"/backupConfigs/"+c.ID+"/encryptionKey"))
		return
	}
}

// quoted quotes a word for a shell.
func quoted(word string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(word) + `"`
}
