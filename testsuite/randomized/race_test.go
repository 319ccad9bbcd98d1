//go:build race

package randomized

const (
	defaultSeeds = 200
	// timeScale multiplies every generated duration: the race detector slows
	// execution down.
	timeScale = 3
)
