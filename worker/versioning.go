package main

import (
	"log/slog"
	"regexp"
	"strings"

	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"keyturn/internal/setting"
	"keyturn/internal/version"
)

const (
	deploymentVariable = "KEYTURN_DEPLOYMENT"
	buildIDVariable    = "KEYTURN_BUILD_ID"
)

// The rules are stricter than Temporal's, which would refuse a name with each poll
// only, and the names need no quotes on a command line.
var (
	deploymentPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$`)
	buildIDPattern    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$`)
)

// readVersioning reads which version of a worker deployment this worker is. The
// zero value turns versioning off: any worker of the task queue continues any
// rotation.
//
// A rotation is pinned: it ends on the version that it began with, including its
// continued runs and the child that it is handed over to.
func readVersioning(env setting.Environment) (sdkworker.DeploymentOptions, error) {
	off := sdkworker.DeploymentOptions{}
	deployment, on := env.LookupEnv(deploymentVariable)
	buildID, named := env.LookupEnv(buildIDVariable)
	switch {
	case !on && named:
		return off, setting.Errorf(buildIDVariable, "requires %s", deploymentVariable)
	case !on:
		return off, nil
	case !named:
		buildID = version.String()
		if !isRelease(buildID) {
			return off, setting.Errorf(buildIDVariable, "is required: this binary was built without version information")
		}
	}
	if !deploymentPattern.MatchString(deployment) {
		return off, setting.Errorf(deploymentVariable, "must be 1 to 100 letters, digits, - or _, and begin with a letter or a digit")
	}
	if !buildIDPattern.MatchString(buildID) {
		return off, setting.Errorf(buildIDVariable, "must be 1 to 100 letters, digits, ., +, - or _, and begin with a letter or a digit")
	}
	return sdkworker.DeploymentOptions{
		UseVersioning:             true,
		Version:                   sdkworker.WorkerDeploymentVersion{DeploymentName: deployment, BuildID: buildID},
		DefaultVersioningBehavior: workflow.VersioningBehaviorPinned,
	}, nil
}

// isRelease reports whether a version identifies one source only.
func isRelease(version string) bool {
	return strings.HasPrefix(version, "v") && !strings.HasSuffix(version, "+dirty")
}

// logVersioning logs the command that makes this version the current one: Temporal
// gives it no work before, and does not say so.
func logVersioning(logger *slog.Logger, deployment sdkworker.DeploymentOptions) {
	if !deployment.UseVersioning {
		return
	}
	logger.Info("this worker receives rotations that start while its version is the deployment's current version",
		"deployment", deployment.Version.DeploymentName, "buildId", deployment.Version.BuildID,
		"makeCurrent", "temporal worker deployment set-current-version --deployment-name "+deployment.Version.DeploymentName+" --build-id "+deployment.Version.BuildID)
}
