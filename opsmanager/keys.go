package opsmanager

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

const keyPath = "/groups/%s/backupConfigs/%s/encryptionKey"

// maxKeyID is the longest id of a key, in bytes; a UUID has 36.
const maxKeyID = 256

// keyObject is the API's answer to a GET of a key, and sometimes to a PUT.
type keyObject struct {
	ClusterID string  `json:"clusterId"`
	GroupID   string  `json:"groupId"`
	UUID      *string `json:"encryptionKeyUUID"`
}

func (k keyObject) isAbout(projectID, clusterID string) bool {
	return strings.EqualFold(k.ClusterID, clusterID) && strings.EqualFold(k.GroupID, projectID)
}

// isBareKey reports whether an object says nothing but that there is no key: it is
// empty, or has the field of the key without a value. Anything else that does not
// name the cluster is somebody else's, such as a login page's JSON.
func isBareKey(body []byte) bool {
	fields, ok := objectOf(body)
	delete(fields, "encryptionKeyUUID")
	delete(fields, "links")
	return ok && len(fields) == 0
}

// EncryptionKey reads the id of the KMIP master key that encrypts a cluster's
// backup now. The id is an opaque string of at most 256 bytes: compare it, do not
// parse it. The parent of a sharded cluster has no key; its shards and its config
// server have. A response without a key is an error of kind [EncryptionOff].
func (c *Client) EncryptionKey(ctx context.Context, projectID, clusterID string) (string, error) {
	r, err := c.request(http.MethodGet, keyPath, projectID, clusterID)
	if err != nil {
		return "", err
	}
	var key keyObject
	a, err := c.read(ctx, r, &key)
	if err != nil {
		return "", err
	}
	hasKey, isAbout := key.UUID != nil && *key.UUID != "", key.isAbout(projectID, clusterID)
	switch {
	case !hasKey && (isAbout || isBareKey(a.body)):
		return "", &Error{Kind: EncryptionOff, Method: r.method, Path: r.target(), StatusCode: a.status, Detail: "the response has no encryptionKeyUUID"}
	case !isAbout:
		return "", c.unexpected(r, a, fmt.Sprintf("the response is about cluster %q of project %q", key.ClusterID, key.GroupID)+excerpt(r, a))
	case !isKeyID(*key.UUID):
		return "", c.unexpected(r, a, "encryptionKeyUUID is not an id")
	}
	return *key.UUID, nil
}

// RotateEncryptionKey requests a new master key once. Success means that the API
// accepted the request: the new id is not in the response and may show late, so
// read it. A repeated call makes another key. An error with OutcomeUnknown means
// that this call may have made a key nevertheless; so does a 2xx response that is
// not the API's.
//
// The context limits only the wait for the client's own limits and for digest
// challenges. A request that has been sent ends with its response or its timeout.
// beforeSend, if not nil, is called directly before each sending (the answer to a
// challenge is another one). If it returns an error, nothing is sent and the
// error is returned, wrapped.
func (c *Client) RotateEncryptionKey(ctx context.Context, projectID, clusterID string, beforeSend func() error) (err error) {
	r, err := c.request(http.MethodPut, keyPath, projectID, clusterID)
	if err != nil {
		return err
	}
	defer func() { c.ended(r, err) }()
	r.beforeSend = beforeSend
	a, err := c.call(ctx, r)
	if err != nil {
		return err
	}
	return c.checkAccepted(r, a, projectID, clusterID)
}

// checkAccepted accepts, besides nothing, the key's object.
func (c *Client) checkAccepted(r request, a answer, projectID, clusterID string) error {
	return c.checkPutResponse(r, a, func() error {
		var key keyObject
		if err := c.decode(r, a, &key); err != nil {
			return err
		}
		if !key.isAbout(projectID, clusterID) {
			return c.unexpected(r, a, "the response to the PUT is not about this cluster's key"+excerpt(r, a))
		}
		return nil
	})
}

// KeyPath returns the path of a cluster's key below the base URL, for messages.
func KeyPath(projectID, clusterID string) string {
	return fmt.Sprintf(apiPath+keyPath, projectID, clusterID)
}
