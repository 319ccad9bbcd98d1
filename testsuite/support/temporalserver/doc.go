// Package temporalserver runs a real Temporal development server, for tests and
// for the sandbox.
//
// The server is part of Temporal's CLI: the `temporal` on the PATH if there is
// one, else the version pinned in tools/temporal, downloaded or built once; see
// [Executable].
//
// The download is not that of the SDK's StartDevServer. That one checks neither
// what it gets nor whether it runs, and keeps it: a proxy's page in a correct
// archive would stay. It waits without a limit for a server that accepts a
// connection and is silent. It returns a running server, not the CLI's path, and
// that server outlives a killed test. Only its own host can be asked.
//
// A package whose tests need a server has this TestMain:
//
//	func TestMain(m *testing.M) { temporalserver.Main(m) }
//
// Its tests then use [Shared], or [StartForTest] for a server of their own.
//
// Such a package runs its tests on another server with a flag:
//
//	go test ./testsuite/endtoend -temporal postgresql
//	go test ./testsuite/endtoend -temporal temporal.example.net:7233 -temporal-namespace tests
//
// The first is Temporal's own server on PostgreSQL with 512 history shards, built
// from the same version as the development server. The second is one that somebody
// else runs, without TLS; tests that configure, kill or restart a server are
// skipped then.
//
// The package needs a Unix system. Only on Linux does the system end the server
// when the program that started it is killed.
package temporalserver
