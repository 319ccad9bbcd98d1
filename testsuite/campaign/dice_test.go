package campaign

import (
	"math/rand/v2"
	"time"
)

// dice draws from a seed: the same seed, the same draws.
type dice struct{ *rand.Rand }

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 0x6b657974))} }

// chance is true in so many of a hundred draws.
func (d dice) chance(percent int) bool { return d.IntN(100) < percent }

// between draws a whole number; both ends can come up.
func (d dice) between(lowest, highest int) int { return lowest + d.IntN(highest-lowest+1) }

// milliseconds draws a time, which slowness stretches.
func (d dice) milliseconds(shortest, longest int) time.Duration {
	return time.Duration(d.between(shortest*1000, longest*1000)) * time.Microsecond * slowness
}

// share draws a part of a time, in percent of it.
func (d dice) share(whole time.Duration, lowest, highest int) time.Duration {
	return whole * time.Duration(d.between(lowest, highest)) / 100
}

func pick[T any](d dice, from ...T) T { return from[d.IntN(len(from))] }
