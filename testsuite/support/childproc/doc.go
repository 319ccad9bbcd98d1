// Package childproc builds the module's programs and runs them as processes
// that end with this one: for the sandbox and the benchmark, which run what
// users run.
package childproc
