package activities

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"

	"keyturn/opsmanager"
)

// ErrorType is the type of a Temporal application error.
type ErrorType string

// Types of the errors that activities return. All but RateLimited and
// OpsManagerUnavailable are non-retryable. Package workflows lists them with
// their meaning, along with the types that only workflows return.
const (
	ErrorInvalidInput          ErrorType = "InvalidInput"          // a wrong input
	ErrorUnknownConnection     ErrorType = "UnknownConnection"     // the worker has no such connection
	ErrorUnauthorized          ErrorType = "Unauthorized"          // 401
	ErrorForbidden             ErrorType = "Forbidden"             // 403
	ErrorNotFound              ErrorType = "NotFound"              // 404
	ErrorUnexpectedTopology    ErrorType = "UnexpectedTopology"    // it is not certain which parts the cluster has
	ErrorEncryptionOff         ErrorType = "EncryptionOff"         // the backup has no key
	ErrorKeyUnchanged          ErrorType = "KeyUnchanged"          // the PUT was accepted, and the key stayed the same
	ErrorUnexpectedResponse    ErrorType = "UnexpectedResponse"    // a response that is not the API's
	ErrorRateLimited           ErrorType = "RateLimited"           // 429
	ErrorOpsManagerUnavailable ErrorType = "OpsManagerUnavailable" // network errors, timeouts, 409 and 5xx
)

// Types of the errors of activities that rotate the keys of deployments. All are
// non-retryable. All but the last two are found before anything is sent.
const (
	// ErrorKeyIdentifierPinned: the settings of a process name its key, which a
	// rotation would not replace.
	ErrorKeyIdentifierPinned ErrorType = "KeyIdentifierPinned"
	// ErrorExternallyManaged: another system manages the project, as the Kubernetes
	// operator does.
	ErrorExternallyManaged ErrorType = "ExternallyManaged"
	// ErrorNotAutomated: Ops Manager's automation does not manage a process.
	ErrorNotAutomated ErrorType = "NotAutomated"
	// ErrorNotInGoalState: the agent of a process has not reached the automation
	// configuration, or reports an error.
	ErrorNotInGoalState ErrorType = "NotInGoalState"
	// ErrorMemberDown: a member of a replica set is down, or its agent is silent.
	ErrorMemberDown ErrorType = "MemberDown"
	// ErrorClockSkew: Ops Manager's clock differs from the worker's or Temporal's by
	// more than 60 s, or a process was rotated in the future.
	ErrorClockSkew ErrorType = "ClockSkew"
	// ErrorRotatedByOthers: a process has a time of rotation that is neither the
	// rotation's own nor the planned previous one. No PUT was sent since it was read.
	ErrorRotatedByOthers ErrorType = "RotatedByOthers"
	// ErrorDeploymentFailed: an agent reports an error, or there was no progress for
	// the deployTimeout. FailureDetails has the processes that have arrived.
	ErrorDeploymentFailed ErrorType = "DeploymentFailed"
)

// errorInterrupted is the type of an attempt's failure that another attempt
// resolves at once: a worker that stops, an activity that is paused or reset. It
// never reaches a workflow.
const errorInterrupted ErrorType = "Interrupted"

// Values of Ops Manager's errorCode.
const (
	codeNoBackup   = "BACKUP_CONFIG_NOT_FOUND" // the cluster has no backup
	codeNoResource = "RESOURCE_NOT_FOUND"      // the path is not one of the API's
)

// FailureDetails are the details of a failed activity.
type FailureDetails struct {
	// ErrorCode is Ops Manager's, if there was one.
	ErrorCode string `json:"errorCode,omitempty"`
	// Ambiguous: a PUT's outcome was unknown at some point.
	Ambiguous bool `json:"ambiguous,omitempty"`
	// PutRefused: no PUT of this activity can have taken effect.
	PutRefused bool `json:"putRefused,omitempty"`
	// EarlierPut: a PUT may have been sent before this activity, so that a later
	// change of the key may be its effect.
	EarlierPut bool `json:"earlierPut,omitempty"`
	// Attempts made of the activity.
	Attempts int `json:"attempts,omitempty"`
	// KeysRead is how many targets of the cluster, or of the project, do have a key,
	// where one was found to have none.
	KeysRead int `json:"keysRead,omitempty"`
	// ClusterGone: Ops Manager does not know the cluster, or its project, whose
	// targets were to be listed.
	ClusterGone bool `json:"clusterGone,omitempty"`
	// Arrived has the processes of AwaitRotationInput that have arrived.
	Arrived []ArrivedProcess `json:"arrived,omitempty"`
	// VersionBefore is that of the configuration that PublishRotation's last PUT was
	// made from; 0 = none was sent.
	VersionBefore int64 `json:"versionBefore,omitempty"`
}

// IsNotEncrypted reports whether an error of these details, and of this type,
// means that no target of a cluster has a key: there is nothing to rotate.
func (d FailureDetails) IsNotEncrypted(errorType ErrorType) bool {
	return d.KeysRead == 0 && (errorType == ErrorEncryptionOff || d.ErrorCode == codeNoBackup)
}

// errorClass of an Ops Manager error: the type that the caller sees, whether
// another attempt may help, and what a person can do about it.
type errorClass struct {
	errorType ErrorType
	retryable bool
	advice    string
}

var classes = map[opsmanager.Kind]errorClass{
	opsmanager.Unauthorized:       {ErrorUnauthorized, false, "check the worker's OPS_MANAGER_PUBLIC_KEY and private key, and that the key belongs to this project with a role that can manage backups"},
	opsmanager.Forbidden:          {ErrorForbidden, false, "check that the API key's access list includes the worker's address, and check the key's role"},
	opsmanager.NotFound:           {ErrorNotFound, false, "check projectId, clusterId and OPS_MANAGER_URL, and that the cluster has a backup"},
	opsmanager.EncryptionOff:      {ErrorEncryptionOff, false, "there is no master key to rotate: check that the backup is active and encrypted with KMIP"},
	opsmanager.UnexpectedResponse: {ErrorUnexpectedResponse, false, "check OPS_MANAGER_URL and any proxy between the worker and Ops Manager"},
	opsmanager.InvalidID:          {ErrorInvalidInput, false, "use the IDs that Ops Manager shows"},
	opsmanager.RateLimited:        {ErrorRateLimited, true, "lower concurrency or the worker's OPS_MANAGER_REQUESTS_PER_SECOND"},
	opsmanager.Unavailable:        {ErrorOpsManagerUnavailable, true, "check that Ops Manager, its KMIP server and the network are available"},
}

// certificateAdvice replaces an unavailable Ops Manager's, where it is one whose
// certificate is not accepted: waiting does not help, a setting may.
var certificateAdvice = map[opsmanager.CertificateFault]string{
	opsmanager.CertificateUntrusted:    "set OPS_MANAGER_CA_FILE in the worker to the certificate of the CA that signed Ops Manager's certificate",
	opsmanager.CertificateExpired:      "renew Ops Manager's certificate, or correct the clock of the worker's machine",
	opsmanager.CertificateHostMismatch: "use a host name in OPS_MANAGER_URL that is in Ops Manager's certificate, or add the name to the certificate",
}

// connectionAdvice names the setting that a refused connection depends on.
var connectionAdvice = map[opsmanager.ConnectionFault]string{
	opsmanager.ProxyAuthenticationRequired: "set the proxy's user name and password in the worker's HTTPS_PROXY (http://user:password@host:port), or name Ops Manager's host in NO_PROXY",
	opsmanager.ProxyRefused:                "permit the connection to Ops Manager in the proxy that the worker's HTTPS_PROXY names, or name Ops Manager's host in NO_PROXY",
	opsmanager.ProxyUnreachable:            "correct the worker's HTTPS_PROXY, or name Ops Manager's host in NO_PROXY",
	opsmanager.ClientCertificateRequired:   "set the worker's OPS_MANAGER_CLIENT_CERT_FILE and OPS_MANAGER_CLIENT_KEY_FILE",
	opsmanager.ClientCertificateRefused:    "set the worker's OPS_MANAGER_CLIENT_CERT_FILE and OPS_MANAGER_CLIENT_KEY_FILE to a certificate that Ops Manager accepts",
	opsmanager.NotTLS:                      "begin the worker's OPS_MANAGER_URL with http://, or give the port that uses TLS",
}

// externallyManaged replaces a refusal's class where it is about who manages the
// project.
var externallyManaged = errorClass{ErrorExternallyManaged, false, "another system manages the project, and Ops Manager refuses changes by others; rotate the keys through that system; do not remove the policy"}

// automationAdvice replaces that of a refused request for an automation
// configuration, which needs another role than those for backups.
const automationAdvice = "check that the worker's API key has the role Project Automation Admin in this project, and that its access list includes the worker's address"

func classify(err *opsmanager.Error) errorClass {
	if err.IsExternallyManaged() {
		return externallyManaged
	}
	m := classes[err.Kind]
	refused := err.Kind == opsmanager.Unauthorized || err.Kind == opsmanager.Forbidden
	if refused && strings.Contains(err.Path, "/automation") {
		m.advice = automationAdvice
	}
	if advice, found := connectionAdvice[err.ConnectionFault()]; found {
		m.advice = advice
	}
	if advice, found := certificateAdvice[err.CertificateFault()]; found {
		m.advice = advice
	}
	return m
}

func permanent(errorType ErrorType, format string, args ...any) error {
	return temporal.NewApplicationErrorWithOptions(fmt.Sprintf(format, args...), string(errorType), temporal.ApplicationErrorOptions{NonRetryable: true})
}

// permanentWith is permanent with details for the workflow.
func permanentWith(details FailureDetails, errorType ErrorType, format string, args ...any) error {
	return temporal.NewApplicationErrorWithOptions(fmt.Sprintf(format, args...), string(errorType), temporal.ApplicationErrorOptions{
		NonRetryable: true, Details: []any{details},
	})
}

// message is what a caller reads: the request, the answer, and what to do.
func message(err *opsmanager.Error, m errorClass) string {
	// Ops Manager's own text may be a sentence.
	return strings.TrimSuffix(err.Error(), ".") + "; " + m.advice
}

// interrupted ends an attempt whose work another one takes up after the pause.
func interrupted(why string, pause time.Duration) error {
	return temporal.NewApplicationErrorWithOptions(why, string(errorInterrupted), temporal.ApplicationErrorOptions{
		NextRetryDelay: pause, Category: temporal.ApplicationErrorCategoryBenign,
	})
}
