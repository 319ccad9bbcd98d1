package opsmanager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
)

const (
	automationConfigPath = "/groups/%s/automationConfig"
	// noSecretsPath is known to Ops Manager 8.0.12, 7.0.18 and later: a GET leaves
	// the secrets out, and a PUT leaves them as they are.
	noSecretsPath = automationConfigPath + "/noSecrets"
	// maxAutomationConfig is the most that is read of a configuration, in bytes.
	// Ops Manager keeps it in one document of at most 16 MiB, and JSON takes more
	// room than that.
	maxAutomationConfig = 64 << 20
)

// Values of errorCode with which Ops Manager refuses to change a configuration.
const (
	codeConcurrentModification = "AUTOMATION_CONFIG_CONCURRENT_MODIFICATION"
	codeExternallyManaged      = "EXTERNALLY_MANAGED_LOCK"
	codeExternalSystem         = "CHANGE_NOT_ALLOWED_EXTERNAL_SYSTEM"
)

// AutomationConfig is the automation configuration of a project, byte for byte as
// Ops Manager sent it. It usually holds passwords and private keys, so there is no
// way to see the text: it cannot be formatted, logged or encoded. The zero value is
// no configuration; only IsZero, Equal and String accept it.
type AutomationConfig struct {
	// get is a function, because fmt prints the unexported fields of a struct
	// without their methods, and with a wrong verb even what a pointer points to.
	get func() *document
}

type document struct {
	text      []byte
	noSecrets bool
	layout    layout
}

func newAutomationConfig(text []byte, noSecrets bool) (AutomationConfig, error) {
	found, err := scan(text)
	if err != nil {
		return AutomationConfig{}, err
	}
	d := &document{text, noSecrets, found}
	return AutomationConfig{func() *document { return d }}, nil
}

// IsZero reports whether there is no configuration.
func (a AutomationConfig) IsZero() bool { return a.get == nil }

// Version is the configuration's own version, which grows with every publication.
func (a AutomationConfig) Version() int64 { return a.get().layout.version }

// Size is the length of the text in bytes.
func (a AutomationConfig) Size() int { return len(a.get().text) }

// HasNoSecrets reports whether Ops Manager left the secrets out.
func (a AutomationConfig) HasNoSecrets() bool { return a.get().noSecrets }

// Equal reports whether two configurations are the same, byte for byte, and of the
// same kind.
func (a AutomationConfig) Equal(other AutomationConfig) bool {
	if a.IsZero() || other.IsZero() {
		return a.IsZero() == other.IsZero()
	}
	one, another := a.get(), other.get()
	return one.noSecrets == another.noSecrets && bytes.Equal(one.text, another.text)
}

// String names the configuration without its text.
func (a AutomationConfig) String() string {
	if a.IsZero() {
		return "no automation configuration"
	}
	return fmt.Sprintf("automation configuration of version %d, %d bytes", a.Version(), a.Size())
}

// Format prints String, whatever the verb.
func (a AutomationConfig) Format(state fmt.State, _ rune) { _, _ = io.WriteString(state, a.String()) }

// LogValue is String.
func (a AutomationConfig) LogValue() slog.Value { return slog.StringValue(a.String()) }

var errNeverEncoded = errors.New("an automation configuration holds secrets and is never encoded")

// MarshalText fails, so that no encoding has the text.
func (a AutomationConfig) MarshalText() ([]byte, error) { return nil, errNeverEncoded }

// AutomationConfig reads the automation configuration of a project, without its
// secrets where Ops Manager can leave them out. A response that is not one JSON
// object with a version and a list of processes, or that repeats a name, is an
// error of kind [UnexpectedResponse].
func (c *Client) AutomationConfig(ctx context.Context, projectID string) (AutomationConfig, error) {
	config, err := c.readAutomationConfig(ctx, noSecretsPath, projectID)
	if apiError, ok := AsError(err); ok && isMissing(apiError) {
		return c.readAutomationConfig(ctx, automationConfigPath, projectID)
	}
	return config, err
}

// AutomationConfigPath returns the path of a project's automation configuration below
// the base URL, for messages.
func AutomationConfigPath(projectID string) string {
	return fmt.Sprintf(apiPath+automationConfigPath, projectID)
}

// isMissing reports whether the API may not have the path. If it is the project
// that is missing, the next request fails, too.
func isMissing(err *Error) bool {
	return err.StatusCode == http.StatusNotFound || err.StatusCode == http.StatusMethodNotAllowed
}

func (c *Client) readAutomationConfig(ctx context.Context, path, projectID string) (config AutomationConfig, err error) {
	r, err := c.request(http.MethodGet, path, projectID)
	if err != nil {
		return AutomationConfig{}, err
	}
	r.secret, r.document = true, true
	defer func() { c.ended(r, err) }()
	a, err := c.call(ctx, r)
	switch {
	case err != nil:
		return AutomationConfig{}, err
	case a.bodyErr != nil:
		return AutomationConfig{}, c.truncated(r, a)
	}
	if err := c.checkSize(r, a); err != nil {
		return AutomationConfig{}, err
	}
	config, err = newAutomationConfig(a.body, path == noSecretsPath)
	if err != nil {
		return AutomationConfig{}, c.unexpected(r, a, err.Error())
	}
	return config, nil
}

// PutAutomationConfig publishes a configuration once, in the form in which it was
// read. Ops Manager does not protect it: the later one of two publications wins.
// Success means that the API accepted it: read it back. An error with
// OutcomeUnknown means that it may have been published nevertheless; so does a 2xx
// response that is not the API's.
//
// The context and beforeSend have the meaning that they have for
// [Client.RotateEncryptionKey].
func (c *Client) PutAutomationConfig(ctx context.Context, projectID string, config AutomationConfig, beforeSend func() error) (err error) {
	path := automationConfigPath
	if config.HasNoSecrets() {
		// Elsewhere it would replace the secrets with placeholders.
		path = noSecretsPath
	}
	r, err := c.request(http.MethodPut, path, projectID)
	if err != nil {
		return err
	}
	r.secret, r.document = true, true
	r.body, r.beforeSend = config.get().text, beforeSend
	defer func() { c.ended(r, err) }()
	a, err := c.call(ctx, r)
	if err != nil {
		return err
	}
	return c.checkPutResponse(r, a, func() error { return c.unexpected(r, a, "the response to the PUT is not an empty object") })
}

// IsConcurrentModification reports whether Ops Manager refused a configuration
// because another one was published at the same time. Nothing was published: read
// it again.
func (e *Error) IsConcurrentModification() bool { return e.ErrorCode == codeConcurrentModification }

// IsExternallyManaged reports whether Ops Manager refused a configuration because
// another system manages the project, as the Kubernetes operator does.
func (e *Error) IsExternallyManaged() bool {
	return slices.Contains([]string{codeExternallyManaged, codeExternalSystem}, e.ErrorCode)
}

// isLockedByOthers reports whether a 401 is a refusal of the change, whatever the
// credentials: no other answer to the challenge helps.
func isLockedByOthers(a answer) bool {
	var body struct {
		ErrorCode string `json:"errorCode"`
	}
	return json.Unmarshal(a.body, &body) == nil && body.ErrorCode == codeExternallyManaged
}
