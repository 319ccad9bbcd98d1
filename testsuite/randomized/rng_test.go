package randomized

import (
	"math/rand/v2"
	"time"
)

// rng generates values from a seed: the same seed gives the same values.
type rng struct{ *rand.Rand }

func newRNG(seed uint64) rng { return rng{rand.New(rand.NewPCG(seed, 0x6b657974))} }

// chance is true with this probability, in percent.
func (rnd rng) chance(percent int) bool { return rnd.IntN(100) < percent }

// between returns an integer in [lowest, highest].
func (rnd rng) between(lowest, highest int) int { return lowest + rnd.IntN(highest-lowest+1) }

// milliseconds returns a duration in this range, multiplied by timeScale.
func (rnd rng) milliseconds(shortest, longest int) time.Duration {
	return time.Duration(rnd.between(shortest*1000, longest*1000)) * time.Microsecond * timeScale
}

// share returns a part of a duration, between lowest and highest percent of it.
func (rnd rng) share(whole time.Duration, lowest, highest int) time.Duration {
	return whole * time.Duration(rnd.between(lowest, highest)) / 100
}

func pick[T any](rnd rng, from ...T) T { return from[rnd.IntN(len(from))] }
