package main

import (
	"fmt"
	"net/http"

	"keyturn/testsuite/simulator"
)

// requestCounts counts the requests that the simulated Ops Manager received
// during one run.
type requestCounts struct {
	// KeyRequests are the authenticated requests for keys of targets,
	// OtherRequests those that find the targets.
	KeyRequests   int `json:"keyRequests"`
	OtherRequests int `json:"otherRequests"`
	// ListRequests are those of OtherRequests that are about clusters: pages of a
	// project's list, counts of its entries, and single clusters.
	ListRequests int `json:"listRequests"`
	// Challenges are the 401 responses with a digest challenge.
	Challenges int `json:"challenges"`
	// PeakInFlight is the maximum number of concurrent requests.
	PeakInFlight int `json:"peakInFlight"`
}

// countRequests returns an error unless exactly one PUT was sent and applied
// for each target, and no more requests were in flight than allowed.
func countRequests(ledger simulator.Ledger, targets []string, inFlight int) (requestCounts, error) {
	counted := requestCounts{Challenges: ledger.Challenges(), PeakInFlight: ledger.MaxInFlight()}
	puts, applied := map[string]int{}, map[string]int{}
	for _, r := range ledger.Requests {
		switch {
		case !r.Authenticated:
		case r.Kind == simulator.KindKey:
			counted.KeyRequests++
			if r.Method == http.MethodPut {
				puts[r.ClusterID]++
			}
		default:
			counted.OtherRequests++
			if r.Kind == simulator.KindClusters || r.Kind == simulator.KindCluster {
				counted.ListRequests++
			}
		}
	}
	for _, r := range ledger.Rotations {
		applied[r.ClusterID]++
	}
	for _, id := range targets {
		if puts[id] != 1 || applied[id] != 1 {
			return counted, fmt.Errorf("target %s had %d PUTs, of which %d were applied; expected 1", id, puts[id], applied[id])
		}
	}
	if len(puts) != len(targets) {
		return counted, fmt.Errorf("%d clusters had a PUT, but there are %d targets", len(puts), len(targets))
	}
	if counted.PeakInFlight > inFlight {
		return counted, fmt.Errorf("%d requests were in flight, but only %d are allowed", counted.PeakInFlight, inFlight)
	}
	return counted, nil
}
