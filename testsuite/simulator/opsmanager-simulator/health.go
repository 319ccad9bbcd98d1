package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// healthTime is how long a simulator that is well may take to say so.
const healthTime = 3 * time.Second

// newHealthCommand makes the command for a container's health check, where
// there is no other program.
func newHealthCommand() *cobra.Command {
	var address string
	command := &cobra.Command{
		Use:   "health",
		Short: "Ask a simulator that runs whether it is well; exit code 0 = it is",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return askHealth(command, address)
		},
	}
	command.Flags().StringVar(&address, "address", "http://127.0.0.1:8080", "the simulator's address")
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
		return errors.New("it answers " + response.Status)
	}
	return nil
}
