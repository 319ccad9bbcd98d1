package kmipevidence

import (
	"context"
	"errors"
	"slices"

	"github.com/ovh/kmip-go"

	"keyturn/internal/reload"
)

// requiredOperations are what [Client.Ask] needs besides Query.
var requiredOperations = []kmip.Operation{kmip.OperationGetAttributes, kmip.OperationLocate}

// Client asks one KMIP server. It is safe for concurrent use; at most four
// requests are under way at a time. Connections are made when they are needed
// and kept for the next call; the files of the Config are read again when they
// change, within a minute.
type Client struct {
	config Config
	server keyServer
	pool   *pool
}

// New returns a client, or a [*setting.Error]. It makes no connection.
func New(config Config) (*Client, error) {
	files, err := config.follow(reload.Interval)
	if err != nil {
		return nil, err
	}
	pool := newPool(config, files)
	return &Client{config: config, server: pool, pool: pool}, nil
}

// Close closes the idle connections. Calls in progress finish.
func (c *Client) Close() { c.pool.close() }

// Ask returns what the KMIP server says about the key whose unique identifier is
// keyUUID. It does not fail: whatever goes wrong is an outcome, with a Message
// for the log. It takes one Get Attributes, and one Locate where the server
// reports no such object; the first call of all takes a Query besides. All of it
// is bounded by Config.Timeout.
//
// The id is never tried as a name: ids of some servers are small numbers that
// may also be the name of another key, and a key that is not there must not be
// witnessed by another one.
func (c *Client) Ask(ctx context.Context, keyUUID string) Evidence {
	ctx, cancel := context.WithTimeout(ctx, c.config.timeout())
	defer cancel()
	evidence := Evidence{AskedAt: now()}
	if keyUUID == "" {
		evidence.Outcome, evidence.Message = OutcomeUnreachable, "nothing was asked: there is no key id"
		return evidence
	}
	attributes, err := c.server.GetAttributes(ctx, keyUUID, requestedAttributes)
	if err != nil {
		evidence.Outcome, evidence.Message = outcomeOf(err), c.explain(err)
		if evidence.Outcome == OutcomeAbsent {
			c.confirmAbsence(ctx, &evidence)
		}
		return evidence
	}
	evidence.add(attributes)
	return evidence
}

// confirmAbsence distinguishes a key that is not there from a server that hides
// all keys from this client, which then reports every key as not found.
func (c *Client) confirmAbsence(ctx context.Context, evidence *Evidence) {
	visible, err := c.server.Locate(ctx, 1)
	var refusal *resultError
	switch {
	case err == nil && len(visible) == 0, outcomeOf(err) == OutcomeForbidden:
		evidence.Outcome = OutcomeForbidden
		evidence.Message += "; and it shows this client no key at all, so it may only hide this one"
	case err != nil && !errors.As(err, &refusal):
		evidence.Outcome, evidence.Message = OutcomeUnreachable, c.explain(err)
	}
}

// Check reports why the KMIP server cannot be asked, as a [*setting.Error] that
// says what to do; nil = it can. It takes one Query.
func (c *Client) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.timeout())
	defer cancel()
	if problem := c.pool.files.Refresh(); problem != nil {
		return problem
	}
	offered, err := c.server.Query(ctx)
	if err != nil {
		return c.config.explain(err)
	}
	for _, operation := range requiredOperations {
		// Servers may keep the list to themselves.
		if len(offered) > 0 && !slices.Contains(offered, operation) {
			return c.config.fault(SettingAddress, "the KMIP server does not offer the operation %s to this client", enumName(operation))
		}
	}
	return nil
}

func (c *Client) explain(err error) string { return c.config.explain(err).Error() }
