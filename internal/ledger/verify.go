package ledger

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"keyturn/internal/ledgerentry"
)

// Reason says in which way an entry does not fit.
type Reason string

// The reasons.
const (
	// ReasonMalformed: a field can't be read, or is not written as the ledger
	// writes it.
	ReasonMalformed Reason = "malformed"
	// ReasonUnknownVersion: the entry was written by a newer version of keyturn.
	ReasonUnknownVersion Reason = "unknownVersion"
	// ReasonSequence: entries before this one are missing, or it is there twice.
	ReasonSequence Reason = "sequence"
	// ReasonHash: the entry was changed.
	ReasonHash Reason = "hash"
	// ReasonLink: the entry does not follow the one before it.
	ReasonLink Reason = "link"
	// ReasonSignature: it is missing, does not verify, or is of an unknown key.
	ReasonSignature Reason = "signature"
	// ReasonDuplicateKey: several entries have one idempotency key.
	ReasonDuplicateKey Reason = "duplicateKey"
	// ReasonAnchor: the ledger has another entry than the anchor, or none.
	ReasonAnchor Reason = "anchor"
)

// Fault is the first entry of a chain that does not fit.
type Fault struct {
	// Chain that has the entry.
	Chain string `json:"chain"`
	// Sequence and Key of the entry, as the database has them.
	Sequence int64  `json:"sequence"`
	Key      string `json:"key"`
	// Reason is the kind of fault.
	Reason Reason `json:"reason"`
	// Detail says in a sentence what is wrong.
	Detail string `json:"detail"`
}

// String is the fault in one line.
func (f Fault) String() string {
	return fmt.Sprintf("chain %s, entry %d: %s: %s", f.Chain, f.Sequence, f.Reason, f.Detail)
}

// VerifyOptions say what a ledger is checked against.
type VerifyOptions struct {
	// PublicKeys verify signatures. Without any, signatures are not checked, and
	// Verification.SignaturesChecked says so.
	PublicKeys PublicKeys
	// AllowUnsigned, with PublicKeys, accepts entries without a signature in
	// front of a chain's first signed one: for a ledger that was begun without a
	// signing key. Otherwise every entry must be signed.
	AllowUnsigned bool
	// Anchor from earlier; nil = none.
	Anchor *Anchor
	// Each, if not nil, gets each entry that can be read, by chain and sequence,
	// whether it fits or not.
	Each func(ledgerentry.Entry)
}

// Verification is what [Ledger.Verify] found.
type Verification struct {
	// Entries is the number of entries that were checked.
	Entries int `json:"entries"`
	// Chains is the number of their chains.
	Chains int `json:"chains"`
	// Signed and Unsigned count entries with and without a signature.
	Signed   int `json:"signed"`
	Unsigned int `json:"unsigned"`
	// SignaturesChecked: public keys were given.
	SignaturesChecked bool `json:"signaturesChecked"`
	// AnchorChecked: an anchor was given. Without one, a removed end of a chain
	// and a removed chain can't be found.
	AnchorChecked bool `json:"anchorChecked"`
	// Faults, at most one for each chain, in the order of the chains; then those
	// of keys that occur twice and those of chains that are gone.
	Faults []Fault `json:"faults"`
	// MissingTriggers of those with which the database refuses changes. Their
	// absence proves no change; with them there, none is excluded.
	MissingTriggers []string `json:"missingTriggers"`
}

// Intact reports whether every entry fits and the database refuses changes.
func (v Verification) Intact() bool { return len(v.Faults) == 0 && len(v.MissingTriggers) == 0 }

// Verify checks every entry: its hash, its place in its chain, its signature,
// and its agreement with an anchor. It reads the entries once, in one state of the
// database, examines them on all cores, and holds some batches of them in memory. An
// error means that it could not look, not that it found a fault.
func (l *Ledger) Verify(ctx context.Context, options VerifyOptions) (result Verification, err error) {
	tx, err := l.database.BeginTx(ctx, l.dialect.snapshot())
	if err != nil {
		return Verification{}, l.described(err)
	}
	defer rollBack(tx, &err)
	v := newVerifier(options)
	if err := v.readEntries(ctx, tx); err != nil {
		return Verification{}, l.described(err)
	}
	if err := v.readDuplicateKeys(ctx, tx); err != nil {
		return Verification{}, l.described(err)
	}
	v.reportAbsentChains()
	v.result.MissingTriggers, err = l.dialect.missingTriggers(ctx, tx)
	if err != nil {
		return Verification{}, l.described(err)
	}
	return v.result, nil
}

// verifier reads entries by chain and sequence.
type verifier struct {
	options VerifyOptions
	result  Verification
	// heads of the anchor that no entry was found for yet, by chain.
	heads map[string]Head

	// previous is the entry before in the chain; its zero value, with the chain's
	// name, stands before the first.
	previous ledgerentry.Entry
	// began: a chain was begun.
	began bool
	// faulty: the chain has a fault, and what follows is not judged.
	faulty bool
	// signed: the chain has a signed entry.
	signed bool
}

func newVerifier(options VerifyOptions) *verifier {
	v := &verifier{options: options, heads: map[string]Head{}}
	v.result.Faults = []Fault{}
	v.result.SignaturesChecked = len(options.PublicKeys) > 0
	if options.Anchor != nil {
		v.result.AnchorChecked = true
		for _, head := range options.Anchor.Heads {
			v.heads[head.Chain] = head
		}
	}
	return v
}

func (v *verifier) readEntries(ctx context.Context, q querier) error {
	rows, err := q.QueryContext(ctx, `SELECT `+columnList+` FROM ledger_entries ORDER BY chain, sequence`)
	if err != nil {
		return err
	}
	defer rows.Close()
	var scanErr error
	scanned := func(yield func(row) bool) {
		for rows.Next() {
			var values row
			if values, scanErr = scanRow(rows); scanErr != nil || !yield(values) {
				return
			}
		}
	}
	for x := range examineInOrder(scanned, v.options.PublicKeys.examine) {
		v.judge(x)
	}
	if err := cmp.Or(scanErr, rows.Err()); err != nil {
		return err
	}
	v.endChain()
	return nil
}

// examination is what can be said of an entry without the others of its chain.
type examination struct {
	entry   ledgerentry.Entry
	readErr error
	// bodyIsCanonical: it is a JSON object in canonical form.
	bodyIsCanonical bool
	// hash is that of the document; empty if there is none.
	hash        string
	documentErr error
	// signatureErr: the signature does not verify, if there are keys and the entry
	// has one.
	signatureErr error
}

// examine does what costs time. It may be called concurrently.
func (k PublicKeys) examine(r row) (x examination) {
	if x.entry, x.readErr = r.entry(); x.readErr != nil {
		return x
	}
	canonical, err := ledgerentry.Canonicalize(x.entry.Body)
	x.bodyIsCanonical = err == nil && bytes.Equal(canonical, x.entry.Body) && bytes.HasPrefix(canonical, []byte("{"))
	document, err := x.entry.Document()
	if err != nil {
		x.documentErr = err
		return x
	}
	x.hash = ledgerentry.HashOf(document)
	if len(k) > 0 && x.entry.Signature != "" {
		x.signatureErr = k.verify(x.entry.SigningKeyID, x.entry.Signature, document)
	}
	return x
}

// judge takes the next entry.
func (v *verifier) judge(x examination) {
	entry := x.entry
	if v.options.Each != nil && x.readErr == nil {
		v.options.Each(entry)
	}
	v.result.Entries++
	if !v.began || entry.Chain != v.previous.Chain {
		v.endChain()
		v.began, v.faulty, v.signed = true, false, false
		v.previous = ledgerentry.Entry{Chain: entry.Chain}
		v.result.Chains++
	}
	if entry.Signature == "" {
		v.result.Unsigned++
	} else {
		v.result.Signed++
	}
	if v.faulty {
		return
	}
	if reason, detail := v.fault(x); reason != "" {
		v.faulty = true
		v.report(entry, reason, detail)
		return
	}
	v.signed = v.signed || entry.Signature != ""
	v.previous = entry
}

func (v *verifier) report(entry ledgerentry.Entry, reason Reason, detail string) {
	v.result.Faults = append(v.result.Faults,
		Fault{Chain: entry.Chain, Sequence: entry.Sequence, Key: entry.Key, Reason: reason, Detail: detail})
}

// fault is empty for an entry that fits.
func (v *verifier) fault(x examination) (Reason, string) {
	entry := x.entry
	if x.readErr != nil {
		return ReasonMalformed, x.readErr.Error()
	}
	if entry.Version != ledgerentry.CurrentVersion {
		return ReasonUnknownVersion, fmt.Sprintf("the entry has version %d, this program knows version %d", entry.Version, ledgerentry.CurrentVersion)
	}
	if detail := v.sequenceFault(entry); detail != "" {
		return ReasonSequence, detail
	}
	if !x.bodyIsCanonical {
		return ReasonMalformed, "body: is not a JSON object in canonical form"
	}
	if x.documentErr != nil {
		return ReasonMalformed, x.documentErr.Error()
	}
	if x.hash != entry.Hash {
		return ReasonHash, fmt.Sprintf("the entry's fields have the hash %s, its hash says %s", x.hash, entry.Hash)
	}
	if entry.PreviousHash != v.previous.Hash {
		return ReasonLink, fmt.Sprintf("it follows an entry with hash %s, the one before it has %s", orNone(entry.PreviousHash), orNone(v.previous.Hash))
	}
	if chain := entry.ChainName(); chain != entry.Chain {
		return ReasonLink, fmt.Sprintf("its fields belong to chain %s", chain)
	}
	if err := v.signatureFault(x); err != nil {
		return ReasonSignature, err.Error()
	}
	return v.anchorFault(entry)
}

func orNone(hash string) string {
	if hash == "" {
		return "(none)"
	}
	return hash
}

func (v *verifier) sequenceFault(entry ledgerentry.Entry) string {
	expected := v.previous.Sequence + 1
	switch {
	case entry.Sequence == expected:
		return ""
	case entry.Sequence < 1:
		return "sequences begin with 1"
	case entry.Sequence == v.previous.Sequence:
		return "this sequence occurs twice"
	default:
		return fmt.Sprintf("entries %d to %d are missing", expected, entry.Sequence-1)
	}
}

func (v *verifier) signatureFault(x examination) error {
	switch {
	case x.entry.Signature == "":
		return v.unsignedFault(x.entry)
	case x.entry.SigningKeyID == "":
		return errors.New("it has a signature, and names no key")
	default:
		return x.signatureErr
	}
}

func (v *verifier) unsignedFault(entry ledgerentry.Entry) error {
	switch {
	case entry.SigningKeyID != "":
		return fmt.Errorf("the signature by key %s is missing", entry.SigningKeyID)
	case v.signed:
		return errors.New("it is not signed, and entries before it are")
	case v.result.SignaturesChecked && !v.options.AllowUnsigned:
		return errors.New("it is not signed")
	default:
		return nil
	}
}

// anchorFault compares the entry that the anchor has of this chain.
func (v *verifier) anchorFault(entry ledgerentry.Entry) (Reason, string) {
	head, anchored := v.heads[entry.Chain]
	if !anchored || head.Sequence != entry.Sequence {
		return "", ""
	}
	delete(v.heads, entry.Chain)
	if head.Hash != entry.Hash {
		return ReasonAnchor, fmt.Sprintf("the anchor of %s has another entry here, with hash %s", v.takenAt(), head.Hash)
	}
	return "", ""
}

// endChain reports a chain whose end was removed. A chain that has a fault
// already keeps that one.
func (v *verifier) endChain() {
	head, missing := v.heads[v.previous.Chain]
	if !v.began || !missing {
		return
	}
	delete(v.heads, v.previous.Chain)
	if v.faulty {
		return
	}
	v.report(v.previous, ReasonAnchor, fmt.Sprintf("the chain ends here, but reached entry %d in the anchor of %s: its end was removed", head.Sequence, v.takenAt()))
}

// reportAbsentChains reports chains that the anchor has and the ledger hasn't.
func (v *verifier) reportAbsentChains() {
	heads := make([]Head, 0, len(v.heads))
	for _, head := range v.heads {
		heads = append(heads, head)
	}
	slices.SortFunc(heads, func(a, b Head) int { return strings.Compare(a.Chain, b.Chain) })
	for _, head := range heads {
		v.result.Faults = append(v.result.Faults, Fault{Chain: head.Chain, Sequence: head.Sequence, Reason: ReasonAnchor,
			Detail: fmt.Sprintf("the chain is gone, but had this entry in the anchor of %s", v.takenAt())})
	}
}

func (v *verifier) takenAt() string { return timeColumn(v.options.Anchor.TakenAt.UTC()) }

// readDuplicateKeys looks for keys that occur in several entries. Someone who
// copies an entry can give it a valid place and hash.
func (v *verifier) readDuplicateKeys(ctx context.Context, q querier) error {
	rows, err := q.QueryContext(ctx, `SELECT chain, sequence, entry_key FROM ledger_entries
		WHERE entry_key IN (SELECT entry_key FROM ledger_entries GROUP BY entry_key HAVING COUNT(*) > 1) ORDER BY entry_key, chain, sequence`)
	if err != nil {
		return err
	}
	defer rows.Close()
	seen := sql.NullString{}
	for rows.Next() {
		var entry ledgerentry.Entry
		var key sql.NullString
		if rows.Scan(&entry.Chain, &entry.Sequence, &key) != nil {
			continue // readEntries has reported this row as malformed
		}
		entry.Key = key.String
		if key == seen {
			v.report(entry, ReasonDuplicateKey, "an entry before it has the same key "+entry.Key)
		}
		seen = key
	}
	return rows.Err()
}
