package main

import (
	"log/slog"
	"regexp"
	"strings"

	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"keyturn/internal/version"
)

const (
	deploymentVariable = "KEYTURN_DEPLOYMENT"
	buildIDVariable    = "KEYTURN_BUILD_ID"
)

// The names are narrower than Temporal's own, whose refusal would come with each
// poll only, and fit into a command line as they are.
var (
	deploymentPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$`)
	buildIDPattern    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$`)
)

// readVersioning reads which version of a worker deployment this worker is. The
// zero value is none: then a rotation goes on with whatever worker polls.
//
// A rotation is pinned: it ends on the version that it began with, and so do the
// runs that it continues as, and the child that it is handed over to.
func readVersioning(env environment) (sdkworker.DeploymentOptions, error) {
	off := sdkworker.DeploymentOptions{}
	deployment, on := env.LookupEnv(deploymentVariable)
	buildID, named := env.LookupEnv(buildIDVariable)
	switch {
	case !on && named:
		return off, wrong(buildIDVariable, "is of no use without %s", deploymentVariable)
	case !on:
		return off, nil
	case !named:
		buildID = version.String()
		if !isRelease(buildID) {
			return off, wrong(buildIDVariable, "is missing, and this program has no version of its own: it was not built from a release or a clean checkout")
		}
	}
	if !deploymentPattern.MatchString(deployment) {
		return off, wrong(deploymentVariable, "must be 1 to 100 letters, digits, - or _, and begin with a letter or a digit")
	}
	if !buildIDPattern.MatchString(buildID) {
		return off, wrong(buildIDVariable, "must be 1 to 100 letters, digits, ., +, - or _, and begin with a letter or a digit")
	}
	return sdkworker.DeploymentOptions{
		UseVersioning:             true,
		Version:                   sdkworker.WorkerDeploymentVersion{DeploymentName: deployment, BuildID: buildID},
		DefaultVersioningBehavior: workflow.VersioningBehaviorPinned,
	}, nil
}

// isRelease tells a version that stands for one source only.
func isRelease(version string) bool {
	return strings.HasPrefix(version, "v") && !strings.HasSuffix(version, "+dirty")
}

// announceVersioning says what else it takes: Temporal gives a version nothing
// before somebody has made it the current one, and says so nowhere.
func announceVersioning(logger *slog.Logger, deployment sdkworker.DeploymentOptions) {
	if !deployment.UseVersioning {
		return
	}
	logger.Info("this worker gets the rotations that begin while its version is the deployment's current one",
		"deployment", deployment.Version.DeploymentName, "buildId", deployment.Version.BuildID,
		"makeCurrent", "temporal worker deployment set-current-version --deployment-name "+deployment.Version.DeploymentName+" --build-id "+deployment.Version.BuildID)
}
