// Package opsmanager is a typed client of the few calls of MongoDB Ops
// Manager's public API that a rotation of KMIP master keys needs: list the
// projects and their clusters, and read and rotate the encryption key of a
// backup.
//
// The client authenticates by HTTP digest (RFC 7616) and by nothing else. It
// follows no redirect and sends no request to any host but the one in
// [Config].BaseURL, over a proxy where the environment (HTTPS_PROXY, HTTP_PROXY,
// NO_PROXY) names one. It uses HTTP/1.1, so that a digest challenge can be
// answered over the connection that brought it.
//
// Every failure of a call is an [*Error]. Its [Kind] says what the failure means
// for the caller, and OutcomeUnknown whether a PUT may have taken effect
// nevertheless. Every failure of [New] and of [Client.Reconfigure] is a
// [*ConfigError].
//
// The encryptionKey endpoint is documented, from Ops Manager 5.0 on, for
// backups of databases at feature compatibility version (FCV) 4.0 or earlier.
package opsmanager
