package opsmanager

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"unicode"
)

const keyPath = "/groups/%s/backupConfigs/%s/encryptionKey"

// maxKeyID bounds a key's id, in bytes; a UUID has 36.
const maxKeyID = 256

// EncryptionKey reads the id of the KMIP master key that a cluster's backup is
// under now. The id is an opaque string: compare it, don't parse it. The id of
// a sharded cluster's parent has no key; its shards and config server have.
// An answer without a key is an error of kind EncryptionOff.
func (c *Client) EncryptionKey(ctx context.Context, projectID, clusterID string) (string, error) {
	r, err := c.request(http.MethodGet, keyPath, projectID, clusterID)
	if err != nil {
		return "", err
	}
	var key struct {
		ClusterID string  `json:"clusterId"`
		GroupID   string  `json:"groupId"`
		UUID      *string `json:"encryptionKeyUUID"`
	}
	a, err := c.read(ctx, r, &key)
	if err != nil {
		return "", err
	}
	if key.UUID == nil || *key.UUID == "" {
		return "", &Error{Kind: EncryptionOff, Method: r.method, Path: r.target(), StatusCode: a.status, Detail: "the answer holds no encryptionKeyUUID"}
	}
	if !strings.EqualFold(key.ClusterID, clusterID) || !strings.EqualFold(key.GroupID, projectID) {
		return "", c.unexpected(r, a, fmt.Sprintf("the answer is about cluster %q of project %q", key.ClusterID, key.GroupID))
	}
	if len(*key.UUID) > maxKeyID || strings.ContainsFunc(*key.UUID, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return "", c.unexpected(r, a, "encryptionKeyUUID is not an id")
	}
	return *key.UUID, nil
}

// RotateEncryptionKey asks once for a new master key. Success means accepted:
// the new id is not in the answer and may show late, so read it. A repeated
// call makes another key; an error with OutcomeUnknown means that this one may
// have made a key all the same.
//
// The context ends the waiting for the client's own limits; a request that is
// on its way is ended by nothing but its timeout. beforeSend, if not nil, is
// asked directly before each sending (a digest challenge takes a second one);
// its error sends nothing and is returned, wrapped.
func (c *Client) RotateEncryptionKey(ctx context.Context, projectID, clusterID string, beforeSend func() error) error {
	r, err := c.request(http.MethodPut, keyPath, projectID, clusterID)
	if err != nil {
		return err
	}
	r.beforeSend = beforeSend
	_, err = c.call(ctx, r)
	c.ended(r, err)
	return err
}

// read sends a GET and decodes the answer, which must be one JSON object.
func (c *Client) read(ctx context.Context, r request, into any) (a answer, err error) {
	defer func() { c.ended(r, err) }()
	a, err = c.call(ctx, r)
	if err != nil {
		return a, err
	}
	if a.bodyErr != nil {
		return a, c.networkError(r, fmt.Errorf("the answer broke off: %w", a.bodyErr), true)
	}
	if len(a.body) > maxBody {
		return a, c.unexpected(r, a, fmt.Sprintf("the answer is larger than %d bytes", maxBody))
	}
	if trimmed := strings.TrimSpace(string(a.body)); !strings.HasPrefix(trimmed, "{") {
		return a, c.unexpected(r, a, "the answer is not a JSON object"+excerpt(r, a))
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		return a, c.unexpected(r, a, "the answer is not the API's JSON: "+jsonProblem(r, err))
	}
	return a, nil
}

// excerpt is the beginning of an answer, where it may be quoted.
func excerpt(r request, a answer) string {
	if r.secret {
		return ""
	}
	return ": " + textOfHTML(a.body)
}

// jsonProblem is without the values of an answer that must not be quoted.
func jsonProblem(r request, err error) string {
	if r.secret {
		return "it can't be decoded"
	}
	return err.Error()
}

// KeyPath is the path of a cluster's key below the base address, for messages.
func KeyPath(projectID, clusterID string) string {
	return fmt.Sprintf(apiPath+keyPath, projectID, clusterID)
}
