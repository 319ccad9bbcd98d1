package workflows

import (
	"errors"
	"fmt"
	"strings"

	"go.temporal.io/sdk/temporal"

	"keyturn/activities"
)

// failure ends a workflow for good, with its records where there are any.
func failure(errorType string, records *RotateClusterResult, format string, args ...any) error {
	options := temporal.ApplicationErrorOptions{NonRetryable: true}
	if records != nil {
		options.Details = []any{records}
	}
	return temporal.NewApplicationErrorWithOptions(fmt.Sprintf(format, args...), errorType, options)
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
	var appErr *temporal.ApplicationError
	if errors.As(err, &appErr) {
		return &TargetError{Type: appErr.Type(), Message: appErr.Message()}
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

// saysNotEncrypted tells whether an activity has failed because no target of the
// cluster has a key.
func saysNotEncrypted(err error) bool {
	var activityErr *temporal.ActivityError
	return errors.As(err, &activityErr) && failureDetailsOf(err).SaysNotEncrypted(targetErrorOf(err).Type)
}

// left is the part of a sentence that names what a rotation leaves; empty if
// there is nothing.
func left(records []TargetRecord) string {
	if names := unverified(records); names != "" {
		return "; left: " + names
	}
	return ""
}

// unverified names the targets that a failed rotation leaves, and why.
func unverified(records []TargetRecord) string {
	var names []string
	for _, t := range records {
		if t.Status == StatusVerified || t.Status == StatusSkipped {
			continue
		}
		name := t.Name + " " + t.Status
		if t.Error != nil {
			name += " (" + t.Error.Type + ")"
		}
		names = append(names, name)
	}
	if more := len(names) - maxReportedNames; more > 0 {
		names = append(names[:maxReportedNames], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}
