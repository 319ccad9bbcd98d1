// Command kmip-simulator runs a simulated KMIP server, in which the simulated Ops
// Manager can make its keys and which a worker can ask about them. It keeps no key
// material.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"keyturn/testsuite/support/kmipsimulator"
)

// healthTimeout is the timeout of the health check.
const healthTimeout = 3 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newCommand(os.Stdout).ExecuteContext(ctx)
	stop()
	if err != nil {
		os.Exit(1)
	}
}

// settings are the program's flags.
type settings struct {
	listen    string
	hosts     []string
	directory string
	clients   []string
}

func newCommand(out io.Writer) *cobra.Command {
	var s settings
	command := &cobra.Command{
		Use:   "kmip-simulator",
		Short: "Run a simulated KMIP server",
		Long: "Run a simulated KMIP server for trying out keyturn. It makes its own certificate authority, and writes\n" +
			"into its directory: ca.pem, and client-NAME.pem and client-NAME.key for each client. It shows every key\n" +
			"to every client that has a certificate, and has no key material.",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			return run(command.Context(), s, out)
		},
	}
	flags := command.Flags()
	flags.StringVar(&s.listen, "listen", "127.0.0.1:5696", "address to listen on; port 0 means a free port")
	flags.StringSliceVar(&s.hosts, "host", nil, "names in the server's certificate, besides localhost and 127.0.0.1")
	flags.StringVar(&s.directory, "directory", "", "directory for the authority, the clients' files and the keys; required")
	flags.StringSliceVar(&s.clients, "client", []string{"ops-manager", "keyturn"}, "names of the clients to write certificates for")
	command.AddCommand(newHealthCommand())
	command.CompletionOptions.DisableDefaultCmd = true
	return command
}

// run serves until the context ends. Its last line of output starts with "ready".
func run(ctx context.Context, s settings, out io.Writer) error {
	if s.directory == "" {
		return errors.New("--directory: is required")
	}
	server, err := kmipsimulator.Start(kmipsimulator.Options{Address: s.listen, Hosts: s.hosts, Directory: s.directory})
	if err != nil {
		return err
	}
	defer server.Close()
	for _, client := range s.clients {
		if _, _, err := server.Authority().WriteClient(s.directory, client); err != nil {
			return fmt.Errorf("--client: %w", err)
		}
		fmt.Fprintf(out, "client   %s\n", filepath.Join(s.directory, "client-"+client+".pem"))
	}
	fmt.Fprintf(out, "ready    %s\n", server.Address())
	<-ctx.Done()
	return nil
}

// newHealthCommand returns the command for the health check of a container that
// has no other program.
func newHealthCommand() *cobra.Command {
	var address, directory, client string
	command := &cobra.Command{
		Use:   "health",
		Short: "Check whether a simulator answers (exit code 0)",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(command.Context(), healthTimeout)
			defer cancel()
			connection, err := kmipsimulator.ReadClient(directory, client, address)
			if err != nil {
				return err
			}
			return connection.Check(ctx)
		},
	}
	command.Flags().StringVar(&address, "address", "127.0.0.1:5696", "address of the simulator")
	command.Flags().StringVar(&directory, "directory", "", "the simulator's directory")
	command.Flags().StringVar(&client, "client", "keyturn", "the client to ask as")
	return command
}
