package main

import (
	"slices"
	"time"
)

// spread is what several runs of the same gave.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf needs one value at least.
func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	return spread{Median: medianOf(sorted), Min: sorted[0], Max: sorted[len(sorted)-1]}
}

func medianOf(sorted []float64) float64 {
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// shareOfIdeal is 1 where a run took no longer than the requests must, and less
// the longer it took.
func shareOfIdeal(ideal time.Duration, seconds spread) spread {
	share := func(took float64) float64 { return ideal.Seconds() / took }
	return spread{Median: share(seconds.Median), Min: share(seconds.Max), Max: share(seconds.Min)}
}

// middleOf is the place of the run whose time is the median, or the next below.
func middleOf(seconds []float64) int {
	places := make([]int, len(seconds))
	for i := range places {
		places[i] = i
	}
	slices.SortStableFunc(places, func(a, b int) int {
		switch {
		case seconds[a] < seconds[b]:
			return -1
		case seconds[a] > seconds[b]:
			return 1
		}
		return 0
	})
	return places[(len(places)-1)/2]
}
