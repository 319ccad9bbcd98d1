package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// healthTime is the timeout of the health check.
const healthTime = 3 * time.Second

// newHealthCommand returns the command for the health check of a container that
// has no other program.
func newHealthCommand() *cobra.Command {
	var address string
	command := &cobra.Command{
		Use:   "health",
		Short: "Check whether a simulator is healthy (exit code 0)",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return askHealth(command, address)
		},
	}
	command.Flags().StringVar(&address, "address", "http://127.0.0.1:8080", "address of the simulator")
	return command
}

func askHealth(command *cobra.Command, address string) error {
	request, err := http.NewRequestWithContext(command.Context(), http.MethodGet, strings.TrimSuffix(address, "/")+"/simulator/faults", nil)
	if err != nil {
		return fmt.Errorf("--address: %w", err)
	}
	client := &http.Client{Timeout: healthTime}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New("unexpected status " + response.Status)
	}
	return nil
}
