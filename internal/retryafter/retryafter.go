// Package retryafter is the one way to read the header Retry-After.
package retryafter

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Parse returns how long a response asks to wait, at most so long: it reads seconds or
// an HTTP date (RFC 9110, section 10.2.3); 0 = missing or unreadable. A date is the
// server's, and is compared with the response's own: this machine's clock, now, may be
// another one.
func Parse(header http.Header, now time.Time, most time.Duration) time.Duration {
	var wait time.Duration
	value := strings.TrimSpace(header.Get("Retry-After"))
	// Of a number that is out of range, ParseInt returns the nearest one.
	if seconds, err := strconv.ParseInt(value, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		wait = time.Duration(min(max(seconds, 0), int64(most/time.Second)+1)) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		if date, err := http.ParseTime(header.Get("Date")); err == nil {
			now = date
		}
		wait = at.Sub(now)
	}
	return min(max(wait, 0), most)
}
