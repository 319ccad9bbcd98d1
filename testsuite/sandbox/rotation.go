package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"keyturn/testsuite/programs"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// starterError is a command of the starter that has failed.
type starterError struct {
	command string
	err     error
}

func (e *starterError) Error() string {
	return "starter " + e.command + " has failed: " + e.err.Error()
}
func (e *starterError) Unwrap() error { return e.err }

// exitCode is the starter's own, if it had one.
func (e *starterError) exitCode() int {
	var exited *exec.ExitError
	if errors.As(e.err, &exited) && exited.ExitCode() > 0 {
		return exited.ExitCode()
	}
	return exitFailed
}

// rotateAndCompare rotates the clusters one after the other and compares their
// records with the ledger.
func (s *sandbox) rotateAndCompare(ctx context.Context) error {
	ctx, stopWatching := programs.WhileWorkerRuns(ctx, s.worker)
	defer stopWatching()
	begun := time.Now()
	for _, cluster := range s.clusters {
		if err := s.rotate(ctx, cluster); err != nil {
			return err
		}
	}
	took := time.Since(begun)
	records, err := s.records(ctx)
	if err != nil {
		return err
	}
	found := compare(s.om.Summary(), s.om.Ledger(), records)
	fmt.Fprintf(s.stdout, "\n%s\n%s\nrotated in %.1f seconds\n", found.table(), found, took.Seconds())
	return found.err()
}

func (s *sandbox) rotate(ctx context.Context, cluster simulator.ShardedCluster) error {
	arguments := append(rotationArguments("rotate", cluster), "--requested-by", "sandbox", "--wait")
	fmt.Fprintf(s.stdout, "\nstarter %s\n", strings.Join(arguments, " "))
	return s.runStarter(ctx, s.stdout, arguments...)
}

// rotationArguments are a starter's command for a cluster.
func rotationArguments(command string, cluster simulator.ShardedCluster) []string {
	return []string{command, "--project", cluster.ProjectID, "--cluster", cluster.ID}
}

// records are those of all clusters, as the starter reports them.
func (s *sandbox) records(ctx context.Context) ([]workflows.TargetRecord, error) {
	var records []workflows.TargetRecord
	for _, cluster := range s.clusters {
		var report bytes.Buffer
		if err := s.runStarter(ctx, &report, append(rotationArguments("report", cluster), "-o", "json")...); err != nil {
			return nil, err
		}
		var result workflows.RotateClusterResult
		if err := json.Unmarshal(report.Bytes(), &result); err != nil {
			return nil, fmt.Errorf("the report of %s can't be read: %w", cluster.Name, err)
		}
		records = append(records, result.Targets...)
	}
	return records, nil
}

// runStarter runs the starter on the terminal, if stdout is one.
func (s *sandbox) runStarter(ctx context.Context, stdout io.Writer, arguments ...string) error {
	command := exec.Command(s.folder.binary("starter"), arguments...)
	command.Env = programs.Environment(s.variables()...)
	command.Stdout, command.Stderr = stdout, s.stderr
	starter, err := programs.StartAttached(command)
	if err == nil {
		err = starter.Wait(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return &starterError{arguments[0], err}
	}
	return nil
}
