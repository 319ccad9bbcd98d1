// Package opsmanager is a typed client of the few calls of MongoDB Ops
// Manager's public API that a rotation of KMIP master keys needs: the clusters
// of a project, and reading and rotating a backup's encryption key.
//
// The client authenticates by HTTP digest (RFC 7616), follows no redirect,
// answers no other authentication, and sends nothing to any host but the one
// that it was made for. Every failure is an [*Error], whose [Kind] says what it
// means for the caller and whose OutcomeUnknown says whether a PUT may have
// taken effect all the same.
//
// The encryptionKey endpoint is documented, from Ops Manager 5.0 on, for
// backups of databases at feature compatibility version (FCV) 4.0 or earlier.
package opsmanager
