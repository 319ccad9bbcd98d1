package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"keyturn/testsuite/support/childproc"
	"keyturn/testsuite/support/freeport"
	"keyturn/testsuite/support/kmipkeys"
	"keyturn/testsuite/support/kmipsimulator"
)

const (
	// The clients of the KMIP server.
	keyMaker   = "ops-manager"
	keyWitness = "keyturn"

	// kmipStartTimeout bounds the start of the KMIP server, and keyTimeout the
	// making of one key.
	kmipStartTimeout = 30 * time.Second
	keyTimeout       = 10 * time.Second
)

// startKMIP starts the KMIP server, a process of its own, and returns when it
// listens. It ends with the sandbox.
func (s *sandbox) startKMIP(ctx context.Context) error {
	if err := os.Mkdir(s.folder.kmip(), 0o700); err != nil {
		return err
	}
	command := exec.Command(s.folder.binary("kmip-simulator"), "--listen", freeport.Address(0), "--directory", s.folder.kmip(), "--client", keyMaker+","+keyWitness)
	command.Env = childproc.Environment()
	command.Stderr = s.stderr
	output, childOutput, err := os.Pipe()
	if err != nil {
		return err
	}
	command.Stdout = childOutput
	s.kmip, err = childproc.StartInBackground(command)
	_ = childOutput.Close() // the child has its own
	if err != nil {
		_ = output.Close()
		return fmt.Errorf("starting the KMIP server: %w", err)
	}
	address := make(chan string, 1)
	go func() {
		defer close(address)
		defer output.Close()
		for lines := bufio.NewScanner(output); lines.Scan(); {
			if ready, found := strings.CutPrefix(lines.Text(), "ready"); found {
				address <- strings.TrimSpace(ready)
			}
		}
	}()
	select {
	case s.kmipAddress = <-address:
	case <-time.After(kmipStartTimeout):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if s.kmipAddress == "" {
		return errors.New("starting the KMIP server: it does not listen")
	}
	if s.keyMaker, err = kmipsimulator.ReadClient(s.folder.kmip(), keyMaker, s.kmipAddress); err != nil {
		return err
	}
	s.printStatus("KMIP server", s.kmipAddress+", simulated, in a process of its own")
	return nil
}

// newKey makes a key in the KMIP server, as an Ops Manager does.
func newKey(in kmipkeys.Connection) func() (string, error) {
	return func() (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), keyTimeout)
		defer cancel()
		return in.NewActiveKey(ctx, "backup")
	}
}

func (s *sandbox) kmipVariables() []childproc.Variable {
	file := func(name string) string { return filepath.Join(s.folder.kmip(), name) }
	return []childproc.Variable{
		{Name: "KMIP_ADDRESS", Value: s.kmipAddress},
		{Name: "KMIP_CA_FILE", Value: file("ca.pem")},
		{Name: "KMIP_CLIENT_CERT_FILE", Value: file("client-" + keyWitness + ".pem")},
		{Name: "KMIP_CLIENT_KEY_FILE", Value: file("client-" + keyWitness + ".key")},
	}
}
