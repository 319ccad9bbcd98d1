package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Head is the newest entry of a chain.
type Head struct {
	Chain    string `json:"chain"`    // the chain
	Sequence int64  `json:"sequence"` // of its newest entry
	Hash     string `json:"hash"`     // of that entry, SHA-256 in lowercase hex
}

// Anchor is the heads of all chains at one moment. Kept where the owner of the
// database cannot write, it lets [Ledger.Verify] find what was removed at the
// end of a chain, and a chain that was rewritten.
type Anchor struct {
	// TakenAt is the clock of whoever took it, in UTC, to the millisecond.
	TakenAt time.Time `json:"takenAt"`
	// Heads by chain.
	Heads []Head `json:"heads"`
}

// Anchor takes the heads of all chains.
func (l *Ledger) Anchor(ctx context.Context) (Anchor, error) {
	anchor := Anchor{TakenAt: l.now().UTC().Truncate(time.Millisecond), Heads: []Head{}}
	rows, err := l.database.QueryContext(ctx, `SELECT chain, sequence, hash FROM ledger_entries
		JOIN (SELECT chain AS last_chain, MAX(sequence) AS last_sequence FROM ledger_entries GROUP BY chain) AS last
		  ON chain = last_chain AND sequence = last_sequence ORDER BY chain`)
	if err != nil {
		return Anchor{}, l.described(err)
	}
	defer rows.Close()
	for rows.Next() {
		var head Head
		if err := rows.Scan(&head.Chain, &head.Sequence, &head.Hash); err != nil {
			return Anchor{}, l.described(err)
		}
		anchor.Heads = append(anchor.Heads, head)
	}
	if err := rows.Err(); err != nil {
		return Anchor{}, l.described(err)
	}
	return anchor, nil
}

// ReadAnchor reads an anchor's JSON. It refuses anything that could make a check
// against it say less than it seems to.
func ReadAnchor(reader io.Reader) (Anchor, error) {
	decoder := json.NewDecoder(reader)
	decoder.DisallowUnknownFields()
	var anchor Anchor
	if err := decoder.Decode(&anchor); err != nil {
		return Anchor{}, fmt.Errorf("not an anchor: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Anchor{}, errors.New("not an anchor: more follows the JSON object")
	}
	if anchor.Heads == nil || anchor.TakenAt.IsZero() {
		return Anchor{}, errors.New("not an anchor: takenAt and heads are required")
	}
	chains := map[string]bool{}
	for _, head := range anchor.Heads {
		if sum, err := hex.DecodeString(head.Hash); err != nil || len(sum) != sha256.Size || head.Sequence < 1 || chains[head.Chain] {
			return Anchor{}, fmt.Errorf("not an anchor: the head of chain %q must have a sequence from 1, a SHA-256 in hex, and occur once", head.Chain)
		}
		chains[head.Chain] = true
	}
	return anchor, nil
}
