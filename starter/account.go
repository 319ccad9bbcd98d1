package main

import (
	"time"

	"keyturn/workflows"
)

// account is what there is to tell of a rotation, a cluster's or a fleet's: how
// far it is, or how it has ended. In JSON it is the progress.
type account interface {
	// state is the phase, and what the rotation waits for.
	state() (phase, waitingFor string)
	// conclude makes it that of a rotation that has ended; failure is empty if
	// that has succeeded.
	conclude(failure string)
	// result is the workflow's result, as far as there is one.
	result() any

	table() string
	csv() string
	markdown() string

	// briefly tells it in two lines.
	briefly() []string
	// statusLine is a bar and the figures.
	statusLine(now time.Time) string
	// rows is a table of what there is room for on a screen.
	rows(now time.Time, screen size) []string
	// changes tells what is new since an earlier account, nil = all is new.
	changes(since account) []string
	// waysOn are the commands to go on with, if the rotation waits for somebody.
	waysOn(a *app) []string
}

// newAccount is one to read a progress, or a result, into.
func (n rotationName) newAccount() account {
	if n.fleet {
		return &fleetAccount{}
	}
	return &clusterAccount{}
}

// accountIn finds the records in a workflow's failure.
func (n rotationName) accountIn(failure error) (account, bool) {
	if n.fleet {
		result, found := workflows.FleetResultOf(failure)
		if !found {
			return nil, false
		}
		return &fleetAccount{FleetProgress: workflows.FleetProgress{RotateFleetResult: *result}}, true
	}
	result, found := workflows.ResultOf(failure)
	if !found {
		return nil, false
	}
	return clusterAccountOf(*result), true
}

// clusterAccount tells of a cluster's rotation.
type clusterAccount struct {
	workflows.Progress
	failure string // of one that has failed
}

func clusterAccountOf(result workflows.RotateClusterResult) *clusterAccount {
	return &clusterAccount{Progress: workflows.Progress{RotateClusterResult: result}}
}

func (c *clusterAccount) state() (phase, waitingFor string) { return c.Phase, c.WaitingFor }

func (c *clusterAccount) conclude(failure string) {
	c.Phase, c.WaitingFor, c.Counts, c.failure = workflows.PhaseDone, "", countsOf(c.Targets), failure
}

func (c *clusterAccount) result() any { return c.RotateClusterResult }

// outcomeText tells of the outcome that there may not be.
func outcomeText(outcome, phase string) string {
	switch {
	case outcome != "":
		return outcome
	case phase == workflows.PhaseDone:
		return "none"
	default:
		return "none yet: " + phase
	}
}
