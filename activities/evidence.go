package activities

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/activity"
	"golang.org/x/sync/errgroup"

	"keyturn/internal/kmipevidence"
)

const (
	// evidenceTimeout bounds what asking about one key may add to a rotation.
	evidenceTimeout = 5 * time.Second
	// slowEvidence is how long an answer may take to fail without a pause.
	slowEvidence = time.Second
	// evidencePause is how long a KMIP server is not asked again after it took long
	// and gave no answer: each target of a rotation would wait for evidenceTimeout
	// otherwise.
	evidencePause = 30 * time.Second
	// listEvidenceTimeout bounds the asking about all keys of one activity.
	listEvidenceTimeout = 2 * time.Minute
	// parallelEvidence is how many keys are asked about at a time.
	parallelEvidence = 4
)

// evidence is what the connection's KMIP server says about a key; nil = the
// connection has none. Whatever goes wrong is an outcome of it: it fails nothing.
// Its time is the server's, as that of the record that it becomes a part of.
func (a *Activities) evidence(ctx context.Context, at *attempt, keyUUID string) *kmipevidence.Evidence {
	connection := at.scope.Connection
	client := a.KMIP[connection]
	if client == nil {
		return nil
	}
	if a.slowKMIP.isPaused(connection) {
		return at.unreachable()
	}
	askCtx, cancel := context.WithTimeout(ctx, evidenceTimeout)
	defer cancel()
	began := time.Now()
	found := client.Ask(askCtx, keyUUID)
	found.AskedAt = at.serverTime(began).UTC().Truncate(time.Millisecond)
	if found.Outcome == kmipevidence.OutcomeUnreachable && ctx.Err() == nil && time.Since(began) >= slowEvidence {
		a.slowKMIP.pause(connection)
	}
	logEvidence(ctx, keyUUID, found)
	return &found
}

func (at *attempt) unreachable() *kmipevidence.Evidence {
	return &kmipevidence.Evidence{Outcome: kmipevidence.OutcomeUnreachable, AskedAt: at.timestamp()}
}

// logEvidence logs why a key has not been witnessed. Many servers show a key only
// to the client that made it, so that "forbidden" is nothing to warn of.
func logEvidence(ctx context.Context, keyUUID string, found kmipevidence.Evidence) {
	logger := activity.GetLogger(ctx)
	switch found.Outcome {
	case kmipevidence.OutcomeWitnessed:
	case kmipevidence.OutcomeForbidden:
		logger.Info("the KMIP server does not show a key to this client", "key", keyUUID, "reason", found.Message)
	default:
		logger.Warn("no KMIP evidence of a key", "key", keyUUID, "outcome", found.Outcome, "reason", found.Message)
	}
}

// evidenceOfAll asks about each of the keys once, the first one alone. A server
// that gives no answer is not asked about the others. The error is that of an
// interruption.
func (a *Activities) evidenceOfAll(ctx context.Context, at *attempt, keyUUIDs []string) (map[string]*kmipevidence.Evidence, error) {
	if a.KMIP[at.scope.Connection] == nil || len(keyUUIDs) == 0 {
		return nil, nil
	}
	askCtx, cancel := context.WithTimeout(ctx, listEvidenceTimeout)
	defer cancel()
	found := make([]*kmipevidence.Evidence, len(keyUUIDs))
	var silent atomic.Bool
	ask := func(i int) error {
		switch {
		case at.isStopping():
			return errWorkerStopping
		case ctx.Err() != nil:
			return errCanceled
		case silent.Load():
			found[i] = at.unreachable()
			return nil
		}
		found[i] = a.evidence(askCtx, at, keyUUIDs[i])
		if found[i].Outcome == kmipevidence.OutcomeUnreachable {
			silent.Store(true)
		}
		return nil
	}
	if err := ask(0); err != nil {
		return nil, err
	}
	var group errgroup.Group
	group.SetLimit(parallelEvidence)
	for i := 1; i < len(keyUUIDs); i++ {
		group.Go(func() error { return ask(i) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	byKey := make(map[string]*kmipevidence.Evidence, len(keyUUIDs))
	for i, uuid := range keyUUIDs {
		byKey[uuid] = found[i]
	}
	return byKey, nil
}

// pauses are until when the KMIP servers of connections are not asked.
type pauses struct {
	mu    sync.Mutex
	until map[string]time.Time // by connection
}

func (p *pauses) pause(connection string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil {
		p.until = map[string]time.Time{}
	}
	p.until[connection] = time.Now().Add(evidencePause)
}

func (p *pauses) isPaused(connection string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.until[connection])
}
