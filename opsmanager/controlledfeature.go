package opsmanager

import (
	"context"
	"fmt"
	"net/http"
	"slices"
)

// ControlledFeature says which system manages a project besides Ops Manager, and
// what Ops Manager refuses because of it.
type ControlledFeature struct {
	// System is the managing system's name, such as "mongodb-enterprise-operator";
	// "" = none is named.
	System string
	// Policies are the names of what Ops Manager refuses, such as
	// "EXTERNALLY_MANAGED_LOCK".
	Policies []string
}

// IsExternallyManaged reports whether Ops Manager refuses to change the automation
// configuration.
func (f ControlledFeature) IsExternallyManaged() bool {
	return slices.Contains(f.Policies, codeExternallyManaged)
}

const controlledFeaturePath = "/groups/%s/controlledFeature"

// ControlledFeaturePath returns the path of who manages a project below the base URL,
// for messages.
func ControlledFeaturePath(projectID string) string {
	return fmt.Sprintf(apiPath+controlledFeaturePath, projectID)
}

// ControlledFeature reads which system manages a project. A response without a list
// of policies is an error of kind [UnexpectedResponse].
func (c *Client) ControlledFeature(ctx context.Context, projectID string) (ControlledFeature, error) {
	r, err := c.request(http.MethodGet, controlledFeaturePath, projectID)
	if err != nil {
		return ControlledFeature{}, err
	}
	var body object
	a, err := c.read(ctx, r, &body)
	if err != nil {
		return ControlledFeature{}, err
	}
	policies, ok := body.list("policies")
	if !ok || !body.has("policies") {
		return ControlledFeature{}, c.unexpected(r, a, "the response has no list of policies")
	}
	system, _ := objectOf(body["externalManagementSystem"])
	feature := ControlledFeature{System: system.text("name")}
	for _, raw := range policies {
		policy, isObject := objectOf(raw)
		if !isObject || policy.text("policy") == "" {
			return ControlledFeature{}, c.unexpected(r, a, "a policy of the response has no name")
		}
		feature.Policies = append(feature.Policies, policy.text("policy"))
	}
	return feature, nil
}
