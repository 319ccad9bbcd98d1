// Package pykmip runs Debian's pykmip-server (package python3-pykmip), a KMIP
// server that has nothing in common with keyturn, on the loopback address, and
// makes keys in it.
package pykmip
