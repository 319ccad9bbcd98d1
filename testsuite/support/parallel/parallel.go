// Package parallel sets how many tests of a package run at a time.
package parallel

import (
	"flag"
	"os"
	"strconv"
	"testing"
)

// Main is a TestMain that runs n tests at a time; see Tests.
func Main(m *testing.M, n int) {
	Tests(n)
	os.Exit(m.Run())
}

// Tests lets n tests run at a time, instead of one for each CPU, unless the
// command line says otherwise. It is for packages whose tests spend nearly all
// of their time waiting. Call it from TestMain.
func Tests(n int) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		_ = flag.Set("test.parallel", strconv.Itoa(n)) // the flag exists and the value is valid
	}
}
