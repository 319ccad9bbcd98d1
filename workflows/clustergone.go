package workflows

import (
	"errors"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
)

// isClusterGone reports whether an activity has failed because Ops Manager does
// not know the cluster or its project.
func isClusterGone(err error) bool {
	var activityErr *temporal.ActivityError
	return errors.As(err, &activityErr) && failureDetailsOf(err).ClusterGone
}

// clusterGoneOr returns the error that says that the cluster is gone, where that
// is why a target's key was not found; else err. A cluster may be removed after
// its targets were listed, and while it waits for approval. Where the cluster was
// looked for and found, its targets are returned, too.
func (r *clusterRotation) clusterGoneOr(ctx workflow.Context, err error) (*activities.ListTargetsResult, error) {
	if ErrorTypeOf(err) != ErrorNotFound || isNotEncrypted(err) ||
		workflow.GetVersion(ctx, "list-again-if-a-target-is-not-found", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return nil, err
	}
	listed, listErr := r.requestTargets(ctx, "look for cluster "+r.input.ClusterID, false)
	switch {
	case isClusterGone(listErr):
		return nil, listErr
	case listErr != nil:
		return nil, err
	}
	return &listed, err
}
