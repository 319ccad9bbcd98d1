// Package programs builds the module's programs and runs them as processes that
// don't outlive the one that started them: for the sandbox and the benchmark,
// which show what users run.
package programs
