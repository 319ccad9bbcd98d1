//go:build !race

package randomized

const (
	defaultSeeds = 300
	// timeScale multiplies every generated duration.
	timeScale = 1
)
