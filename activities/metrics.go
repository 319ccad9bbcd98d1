package activities

import (
	"slices"
	"time"

	"go.temporal.io/sdk/activity"

	"keyturn/opsmanager"
)

// RetriesMetric counts tries that are to be made again, by ErrorLabel. It is
// counted through the SDK's metrics handler, as the workflows' metrics are.
const RetriesMetric = "keyturn_retries_total"

// ErrorLabel is the label that holds an error's type.
const ErrorLabel = "error"

// ErrorTypes are all types of application errors that reach a caller.
var ErrorTypes = []string{
	ErrorInvalidInput, ErrorUnknownConnection, ErrorUnauthorized, ErrorForbidden, ErrorNotFound, ErrorUnexpectedTopology,
	ErrorEncryptionOff, ErrorClusterBusy, ErrorKeyUnchanged, ErrorRejected, ErrorApprovalTimedOut, ErrorAborted,
	ErrorPartialFailure, ErrorUnexpectedResponse, ErrorRateLimited, ErrorOpsManagerUnavailable,
}

// OtherError labels an error whose type is none of ErrorTypes, so that a label
// has no more values than are known.
const OtherError = "Other"

// LabelOf is the value of ErrorLabel for an error's type.
func LabelOf(errorType string) string {
	if slices.Contains(ErrorTypes, errorType) {
		return errorType
	}
	return OtherError
}

// retrying counts and logs a try that is made again after a pause.
func (at *attempt) retrying(err *opsmanager.Error, pause time.Duration) {
	m := meaningOf(err)
	activity.GetMetricsHandler(at.ctx).WithTags(map[string]string{ErrorLabel: LabelOf(m.errorType)}).Counter(RetriesMetric).Inc(1)
	activity.GetLogger(at.ctx).Warn("trying again", "pause", pause, "error", m.errorType, "message", err.Error())
}
