package main

import (
	"keyturn/testsuite/simulator"
)

// kind is one of the two kinds of rotations that the sandbox shows. The rest of the
// sandbox is the same for both.
type kind interface {
	// serviceVersion is that of the simulated Ops Manager.
	serviceVersion() string
	// populate adds what is rotated to Ops Manager, and describes it.
	populate(om *simulator.Server) []part
	// rotations are those that the sandbox runs, one after the other.
	rotations() []rotation
	// verify compares the reports of these rotations, in JSON, with the ledger.
	verify(om *simulator.Server, reports [][]byte) (verification, error)
	// nextSteps are what to try with a shell that is configured for the sandbox.
	nextSteps(s *sandbox) []nextStep
}

// part is something that runs or is rotated in the sandbox.
type part struct{ name, text string }

// rotation is a rotation that the sandbox runs.
type rotation struct {
	name       string // as people call what is rotated
	workflowID string
	// flags name what is rotated, for every command; settings are further flags of a
	// rotation.
	flags, settings []string
}

// arguments are those of a command for what is rotated.
func (r rotation) arguments(command string, more ...string) []string {
	return append(append([]string{command}, r.flags...), more...)
}

// rotateArguments start the rotation.
func (r rotation) rotateArguments(more ...string) []string {
	return r.arguments("rotate", append(append([]string{}, r.settings...), more...)...)
}

func (s settings) kind() kind {
	if s.deployment {
		return &deploymentKind{settings: s}
	}
	return &clusterKind{settings: s}
}
