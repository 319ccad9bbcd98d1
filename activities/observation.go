package activities

import "time"

// minObservationGap is the shortest time between two readings that counts as a
// gap in an observation.
const minObservationGap = time.Second

// observation is an unbroken row of readings that show the same. Only observed time
// counts where the outcome of a PUT is unknown: a server that stood still meanwhile
// may apply the PUT afterwards.
type observation struct {
	at *attempt
	// longestGap between two readings does not break the row; 0 = no gap does.
	longestGap time.Duration
	// since and last are the first and the last reading of the row; zero = there is
	// none.
	since, last time.Time

	asked        time.Time
	failedBefore int64
}

// observeWithin returns an observation that a gap of several pauses breaks.
func (at *attempt) observeWithin(pause time.Duration) *observation {
	return &observation{at: at, longestGap: max(3*pause, minObservationGap)}
}

// ask begins a reading.
func (o *observation) ask() {
	o.failedBefore, o.asked = o.at.failedRequests.Load(), time.Now()
}

// unchanged adds the reading that has just ended, and reports whether it came after a
// gap. A failed request within it begins a new row, too.
func (o *observation) unchanged() (afterGap bool) {
	now := time.Now()
	gap := o.longestGap > 0 && !o.since.IsZero() && now.Sub(o.last) > o.longestGap
	if o.since.IsZero() || gap || o.at.failedRequests.Load() > o.failedBefore {
		o.since = now
	}
	o.last = now
	return gap
}

// interrupt ends the row: nothing could be read.
func (o *observation) interrupt() { o.since = time.Time{} }

// lasted is how long the row has lasted for certain: until the request of its last
// reading.
func (o *observation) lasted() time.Duration { return o.asked.Sub(o.since) }
