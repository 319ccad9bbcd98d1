package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.temporal.io/sdk/temporal"

	"keyturn/activities"
	"keyturn/internal/ellipsis"
)

// ErrorType is the type of a Temporal application error. Use [ErrorTypeOf] to
// read it from the error of a workflow, a child workflow or an operation.
type ErrorType = activities.ErrorType

// Types of the errors with which a rotation or one of its targets fails.
// RateLimited and OpsManagerUnavailable are retried for RetryTimeout before they
// fail anything; all others fail at once.
const (
	// ErrorInvalidInput: the input or an update's request breaks a rule. The
	// message names every wrong field.
	ErrorInvalidInput = activities.ErrorInvalidInput
	// ErrorUnknownConnection: the worker has no connection of this name.
	ErrorUnknownConnection = activities.ErrorUnknownConnection
	// ErrorUnauthorized: Ops Manager refused the worker's API key (401).
	ErrorUnauthorized = activities.ErrorUnauthorized
	// ErrorForbidden: the API key's role or access list does not allow the
	// request (403). The message has Ops Manager's errorCode.
	ErrorForbidden = activities.ErrorForbidden
	// ErrorNotFound: Ops Manager does not know the project, the cluster or its
	// backup (404).
	ErrorNotFound = activities.ErrorNotFound
	// ErrorUnexpectedTopology: the cluster's targets cannot be determined
	// without doubt, or their number is not ExpectedTargets. Nothing was
	// rotated.
	ErrorUnexpectedTopology = activities.ErrorUnexpectedTopology
	// ErrorEncryptionOff: the backup has no KMIP master key.
	ErrorEncryptionOff = activities.ErrorEncryptionOff
	// ErrorNotServed: this is Ops Manager 8.0 or later, whose endpoint for the keys
	// of backups serves no supported MongoDB. Nothing was rotated. See
	// AllowUnserved.
	ErrorNotServed ErrorType = "NotServed"
	// ErrorClusterBusy: a rotation of this cluster is already running. The
	// message has its workflow ID.
	ErrorClusterBusy ErrorType = "ClusterBusy"
	// ErrorKeyUnchanged: Ops Manager accepted the PUT, but the key did not
	// change within VerifyTimeout.
	ErrorKeyUnchanged = activities.ErrorKeyUnchanged
	// ErrorRejected: an operator rejected the plan. Nothing was rotated.
	ErrorRejected ErrorType = "Rejected"
	// ErrorApprovalTimedOut: nobody approved the plan within ApprovalTimeout.
	// Nothing was rotated.
	ErrorApprovalTimedOut ErrorType = "ApprovalTimedOut"
	// ErrorAborted: an operator aborted the rotation or canceled its workflow.
	// The details are its result.
	ErrorAborted ErrorType = "Aborted"
	// ErrorPartialFailure: the rotation ended without verifying every target,
	// or the fleet with failed clusters. The details are its result.
	ErrorPartialFailure ErrorType = "PartialFailure"
	// ErrorUnexpectedResponse: the response is not one of Ops Manager's API,
	// such as a proxy's HTML page.
	ErrorUnexpectedResponse = activities.ErrorUnexpectedResponse
	// ErrorRateLimited: Ops Manager refused requests as too many (429).
	ErrorRateLimited = activities.ErrorRateLimited
	// ErrorOpsManagerUnavailable: network errors, timeouts, and the status
	// codes 409 and 5xx.
	ErrorOpsManagerUnavailable = activities.ErrorOpsManagerUnavailable
)

// Types of the errors with which a rotation of a deployment, or one of its targets,
// fails besides. None is retried. Those before ErrorRotatedByOthers are found before
// anything is published.
const (
	// ErrorKeyIdentifierPinned: a process's settings name its key
	// (security.kmip.keyIdentifier), which a rotation would not replace.
	ErrorKeyIdentifierPinned = activities.ErrorKeyIdentifierPinned
	// ErrorExternallyManaged: another system manages the project, such as the
	// Kubernetes operator.
	ErrorExternallyManaged = activities.ErrorExternallyManaged
	// ErrorNotAutomated: Ops Manager's automation does not manage a process.
	ErrorNotAutomated = activities.ErrorNotAutomated
	// ErrorNotInGoalState: an agent has not reached the automation configuration, or
	// reports an error.
	ErrorNotInGoalState = activities.ErrorNotInGoalState
	// ErrorMemberDown: a member of a replica set is down, or its agent is silent.
	ErrorMemberDown = activities.ErrorMemberDown
	// ErrorClockSkew: the clocks of Ops Manager and of the worker or Temporal differ
	// by more than 60 seconds, or a process was rotated in the future.
	ErrorClockSkew = activities.ErrorClockSkew
	// ErrorRotatedByOthers: a process has another time of rotation than the one that
	// was planned to be replaced. Nothing was published for its batch.
	ErrorRotatedByOthers = activities.ErrorRotatedByOthers
	// ErrorOverwroteConcurrentChange: someone else published an automation
	// configuration at the moment of the rotation's own PUT, and their change may be
	// lost. The message names the publishers.
	ErrorOverwroteConcurrentChange ErrorType = "OverwroteConcurrentChange"
	// ErrorDeploymentFailed: an agent reports an error, or there was no progress for
	// DeployTimeout.
	ErrorDeploymentFailed = activities.ErrorDeploymentFailed
)

// ErrorTypes lists every type in the constants above.
var ErrorTypes = []ErrorType{
	ErrorInvalidInput, ErrorUnknownConnection, ErrorUnauthorized, ErrorForbidden, ErrorNotFound, ErrorUnexpectedTopology,
	ErrorEncryptionOff, ErrorNotServed, ErrorClusterBusy, ErrorKeyUnchanged, ErrorRejected, ErrorApprovalTimedOut, ErrorAborted,
	ErrorPartialFailure, ErrorUnexpectedResponse, ErrorRateLimited, ErrorOpsManagerUnavailable,
	ErrorKeyIdentifierPinned, ErrorExternallyManaged, ErrorNotAutomated, ErrorNotInGoalState, ErrorMemberDown, ErrorClockSkew,
	ErrorRotatedByOthers, ErrorOverwroteConcurrentChange, ErrorDeploymentFailed,
}

// failure ends a workflow for good, with its records where there are any.
func failure(errorType ErrorType, records any, format string, args ...any) error {
	options := temporal.ApplicationErrorOptions{NonRetryable: true}
	if result, isRotation := records.(rotationResult); isRotation {
		records = fittedForFailure(result)
	}
	if records != nil {
		options.Details = []any{records}
	}
	return temporal.NewApplicationErrorWithOptions(ellipsis.Cut(fmt.Sprintf(format, args...), maxMessage), string(errorType), options)
}

// ErrorTypeOf returns the type of the failure in err, as [FailureOf] finds it; "" if
// err holds none.
func ErrorTypeOf(err error) ErrorType {
	if failed, isFailure := FailureOf(err); isFailure {
		return failed.Type
	}
	return ""
}

// causeOf strips what Temporal wraps around the application error of an
// activity or a child, so that the caller sees its type at once.
func causeOf(err error) error {
	var appErr *temporal.ApplicationError
	if errors.As(err, &appErr) {
		return appErr
	}
	return err
}

// targetErrorOf is what a record keeps of an activity's failure.
func targetErrorOf(err error) *TargetError {
	if failed, isFailure := FailureOf(err); isFailure {
		return failed
	}
	return &TargetError{Type: activities.ErrorOpsManagerUnavailable, Message: err.Error()}
}

// failureDetailsOf is what RotateKey says of its failure.
func failureDetailsOf(err error) (details activities.FailureDetails) {
	var appErr *temporal.ApplicationError
	if errors.As(err, &appErr) && appErr.HasDetails() {
		_ = appErr.Details(&details) // foreign details say nothing of ours
	}
	return details
}

// isNotEncrypted reports whether an activity has failed because no target of the
// cluster has a key.
func isNotEncrypted(err error) bool {
	var activityErr *temporal.ActivityError
	return errors.As(err, &activityErr) && failureDetailsOf(err).IsNotEncrypted(targetErrorOf(err).Type)
}

// describeUnfinished names the targets that a failed rotation leaves, and why.
func describeUnfinished(targets []target) string {
	var names []string
	for _, t := range targets {
		if t.isDone() || hasStatus(t, StatusSkipped) {
			continue
		}
		name := t.label() + " " + string(statusOf(t))
		if failure := failureOf(t); failure != nil {
			name += " (" + string(failure.Type) + ")"
		}
		names = append(names, name)
	}
	return someNames(names)
}

// someNames lists names in a sentence: the first ones, and how many others there
// are.
func someNames(names []string) string {
	if more := len(names) - maxReportedNames; more > 0 {
		names = append(slices.Clone(names[:maxReportedNames]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}
