// Package temporalserver runs a real Temporal development server, for tests and
// for trying things out on one machine.
//
// The server is the one in Temporal's command line tool: the `temporal` on the
// PATH if there is one, else the version pinned in tools/temporal, which is
// built once and then comes from Go's build cache.
//
// A package whose tests need a server says so in its TestMain:
//
//	func TestMain(m *testing.M) { temporalserver.Main(m) }
//
// and then uses [Shared], or [StartForTest] for a server of a test's own.
//
// The package needs a Unix system. Only on Linux does the system itself end the
// server when the program that started it is killed.
package temporalserver
