// Package kmipevidence asks a KMIP server what it knows about a key: whether it
// has the key, in which state, and since when. It asks by three read-only
// operations, Query, Locate and Get Attributes, and never for key material.
//
// The answer is an [Evidence]. It comes from a system that is independent of Ops
// Manager, so a record of a rotation can say more than what Ops Manager says.
package kmipevidence
