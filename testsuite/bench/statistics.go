package main

import (
	"slices"
	"time"
)

// spread has the statistics of several runs.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf requires at least one value.
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

// shareOfIdeal is 1 if a run took no longer than the requests require, and less
// if it took longer.
func shareOfIdeal(ideal time.Duration, seconds spread) spread {
	share := func(took float64) float64 { return ideal.Seconds() / took }
	return spread{Median: share(seconds.Median), Min: share(seconds.Max), Max: share(seconds.Min)}
}

// middleOf is the index of the run with the median time, or the next lower one.
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
