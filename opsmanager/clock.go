package opsmanager

import (
	"net/http"
	"time"
)

// clockReading is what one response shows of Ops Manager's clock.
type clockReading struct{ least, most time.Duration }

// noteClock compares the Date of a response with this machine's clock. The header has
// whole seconds, and was written at some time between the request and the response,
// which may be long apart: only the bounds are certain. A response out of a cache has
// the date of its making.
func (c *Client) noteClock(a answer) {
	date, err := http.ParseTime(a.header.Get("Date"))
	if err != nil || a.header.Get("Age") != "" {
		return
	}
	c.clock.Store(&clockReading{least: date.Sub(a.answered), most: date.Add(time.Second).Sub(a.asked)})
}

// ClockOffset returns by how much Ops Manager's clock is ahead of this machine's, at
// least and at most, by the last successful response with a Date: they are a second
// and the duration of that request apart. known is false if there was none yet.
func (c *Client) ClockOffset() (least, most time.Duration, known bool) {
	if reading := c.clock.Load(); reading != nil {
		return reading.least, reading.most, true
	}
	return 0, 0, false
}
