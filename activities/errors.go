package activities

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"

	"keyturn/opsmanager"
)

// Types of the application errors that reach a caller. All but RateLimited and
// OpsManagerUnavailable are non-retryable.
const (
	ErrorInvalidInput          = "InvalidInput"
	ErrorUnknownConnection     = "UnknownConnection"
	ErrorUnauthorized          = "Unauthorized"
	ErrorForbidden             = "Forbidden"
	ErrorNotFound              = "NotFound"
	ErrorUnexpectedTopology    = "UnexpectedTopology"
	ErrorEncryptionOff         = "EncryptionOff"
	ErrorClusterBusy           = "ClusterBusy"
	ErrorKeyUnchanged          = "KeyUnchanged"
	ErrorRejected              = "Rejected"
	ErrorApprovalTimedOut      = "ApprovalTimedOut"
	ErrorAborted               = "Aborted"
	ErrorPartialFailure        = "PartialFailure"
	ErrorUnexpectedResponse    = "UnexpectedResponse"
	ErrorRateLimited           = "RateLimited"
	ErrorOpsManagerUnavailable = "OpsManagerUnavailable"
)

// errorInterrupted is the type of an attempt's failure that another attempt
// mends at once: a worker that stops, an activity that is paused or reset. It
// never reaches a workflow.
const errorInterrupted = "Interrupted"

// codeNoBackup is Ops Manager's errorCode where a cluster has no backup.
const codeNoBackup = "BACKUP_CONFIG_NOT_FOUND"

// FailureDetails are the details of a failed activity.
type FailureDetails struct {
	// ErrorCode is Ops Manager's, if there was one.
	ErrorCode string `json:"errorCode,omitempty"`
	// Ambiguous: a PUT's outcome was unknown at some point.
	Ambiguous bool `json:"ambiguous,omitempty"`
	// PutRefused: no PUT of this activity can have taken effect.
	PutRefused bool `json:"putRefused,omitempty"`
	// Attempts made of the activity.
	Attempts int `json:"attempts,omitempty"`
	// KeysRead is how many targets of the cluster do have a key, where one was
	// found to have none.
	KeysRead int `json:"keysRead,omitempty"`
}

// SaysNotEncrypted tells whether an error of these details, and of this type,
// means that no target of a cluster has a key: there is nothing to rotate.
func (d FailureDetails) SaysNotEncrypted(errorType string) bool {
	return d.KeysRead == 0 && (errorType == ErrorEncryptionOff || d.ErrorCode == codeNoBackup)
}

// meaning of an Ops Manager error: the type that the caller sees, whether
// another attempt may help, and what a person can do about it.
type meaning struct {
	errorType string
	retryable bool
	advice    string
}

var meanings = map[opsmanager.Kind]meaning{
	opsmanager.Unauthorized:       {ErrorUnauthorized, false, "check the worker's OPS_MANAGER_PUBLIC_KEY and private key, and that the key belongs to this project with a role that may manage backups"},
	opsmanager.Forbidden:          {ErrorForbidden, false, "check the API access list of the key for the worker's address, and the key's role"},
	opsmanager.NotFound:           {ErrorNotFound, false, "check projectId and clusterId, that the cluster has a backup, and OPS_MANAGER_URL"},
	opsmanager.EncryptionOff:      {ErrorEncryptionOff, false, "there is no master key to rotate: check that the backup is active and encrypted with KMIP"},
	opsmanager.UnexpectedResponse: {ErrorUnexpectedResponse, false, "check OPS_MANAGER_URL and what stands between the worker and Ops Manager"},
	opsmanager.InvalidID:          {ErrorInvalidInput, false, "give Ops Manager's ids"},
	opsmanager.RateLimited:        {ErrorRateLimited, true, "lower concurrency or the worker's OPS_MANAGER_REQUESTS_PER_SECOND"},
	opsmanager.Unavailable:        {ErrorOpsManagerUnavailable, true, "check that Ops Manager, its KMIP server and the network are up"},
}

// certificateAdvice replaces an unavailable Ops Manager's, where it is one whose
// certificate is not accepted: no waiting mends that, but a person may.
var certificateAdvice = map[opsmanager.CertificateFault]string{
	opsmanager.CertificateUntrusted: "name the certificate of the authority that has signed Ops Manager's in the worker's OPS_MANAGER_CA_FILE",
	opsmanager.CertificateExpired:   "renew Ops Manager's certificate, or set the clock of the worker's machine",
	opsmanager.CertificateOfAnother: "call Ops Manager in OPS_MANAGER_URL by a name that is in its certificate, or have that name added",
}

func meaningOf(err *opsmanager.Error) meaning {
	m := meanings[err.Kind]
	if advice, found := certificateAdvice[err.CertificateFault()]; found {
		m.advice = advice
	}
	return m
}

func permanent(errorType, format string, args ...any) error {
	return temporal.NewApplicationErrorWithOptions(fmt.Sprintf(format, args...), errorType, temporal.ApplicationErrorOptions{NonRetryable: true})
}

// message is what a caller reads: the request, the answer, and what to do.
func message(err *opsmanager.Error, m meaning) string {
	return fmt.Sprintf("%v; %s", err, m.advice)
}

// interrupted ends an attempt whose work another one takes up after the pause.
func interrupted(why string, pause time.Duration) error {
	return temporal.NewApplicationErrorWithOptions(why, errorInterrupted, temporal.ApplicationErrorOptions{
		NextRetryDelay: pause, Category: temporal.ApplicationErrorCategoryBenign,
	})
}
