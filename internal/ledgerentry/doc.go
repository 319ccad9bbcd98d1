// Package ledgerentry is what workflows and activities know of the ledger: the record
// of a rotation that ended, the entry that it becomes, and how both are hashed. The
// database is in package ledger, so that programs that import the workflows need no
// database drivers.
package ledgerentry
