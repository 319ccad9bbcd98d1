// Package activities holds the steps of a rotation that call Ops Manager:
// ListTargets, ReadKeys, RotateKey and VerifyKey. Workflows give them their
// order; this package gives them their safety.
//
// Every failure is a Temporal application error of one of the types in
// errors.go. None of them, and no heartbeat, holds a secret.
package activities
