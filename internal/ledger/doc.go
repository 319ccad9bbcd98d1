// Package ledger keeps one entry for every rotation that ended, longer than
// Temporal keeps its histories, in SQLite or PostgreSQL.
//
// # Chains, hashes and signatures
//
// The entries of a cluster are a chain. An entry's JSON without the members hash
// and signature, in canonical form (RFC 8785), is its document. The hash is the
// SHA-256 of the document, in hex. The document holds the hash of the entry
// before it, so a hash fixes everything before it in its chain. The signature,
// if a signing key is configured, is Ed25519 over the document. [ledgerentry.Entry] marshals
// to JSON that another program can check in the same way.
//
// # What is protected, and from whom
//
// The database refuses to change or delete entries, by triggers. Whoever owns
// the database can drop these, so [Ledger.Verify] trusts no trigger, no
// constraint and no index. It finds each entry that was changed, removed from
// within a chain, moved, inserted or duplicated.
//
// Without an [Anchor] it cannot find that the newest entries of a chain, or all
// entries of a chain, were removed: what is left is a valid, shorter ledger.
// Without signatures it cannot find that a chain was rewritten from some entry
// on with new hashes. Keep an anchor, the heads of all chains, where the owner
// of the database cannot write. The hash in an anchor also finds a chain that
// was rewritten.
//
// # Privileges on PostgreSQL
//
// A worker creates and upgrades the tables if its role may. To keep the worker
// from dropping the triggers, let another role own the tables: run one worker as
// the owner once, and again before an upgrade, and grant the role of the workers
// SELECT and INSERT on ledger_entries and SELECT on ledger_schema. Programs that
// only read need SELECT on both.
package ledger
