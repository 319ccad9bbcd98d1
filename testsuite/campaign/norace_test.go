//go:build !race

package campaign

const (
	seedsByDefault = 1000
	// slowness stretches every drawn time.
	slowness = 1
)
