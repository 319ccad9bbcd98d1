package main

import (
	"fmt"
	"net/http"

	"keyturn/testsuite/simulator"
)

// account is what the simulated Ops Manager was asked during one run.
type account struct {
	// KeyRequests are those of the targets' keys, OtherRequests those that find
	// the targets; both with right credentials.
	KeyRequests   int `json:"keyRequests"`
	OtherRequests int `json:"otherRequests"`
	// Challenges are the answers 401 that ask for a digest.
	Challenges int `json:"challenges"`
	// PeakInFlight is the greatest number of requests at one time.
	PeakInFlight int `json:"peakInFlight"`
}

// accountOf fails unless each target had one PUT, which took effect, and no more
// requests were in flight than the way was given.
func accountOf(ledger simulator.Ledger, targets []string, inFlight int) (account, error) {
	counted := account{Challenges: ledger.Challenges(), PeakInFlight: ledger.MaxInFlight()}
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
		}
	}
	for _, r := range ledger.Rotations {
		applied[r.ClusterID]++
	}
	for _, id := range targets {
		if puts[id] != 1 || applied[id] != 1 {
			return counted, fmt.Errorf("target %s had %d PUTs, of which %d took effect: it must be one", id, puts[id], applied[id])
		}
	}
	if len(puts) != len(targets) {
		return counted, fmt.Errorf("%d entities had a PUT, and there are %d targets", len(puts), len(targets))
	}
	if counted.PeakInFlight > inFlight {
		return counted, fmt.Errorf("%d requests were in flight at one time, and %d are allowed", counted.PeakInFlight, inFlight)
	}
	return counted, nil
}
