//go:build race

package campaign

const (
	seedsByDefault = 200
	// slowness stretches every drawn time: the race detector slows down what is
	// timed.
	slowness = 3
)
