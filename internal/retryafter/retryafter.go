// Package retryafter is the one way to read the header Retry-After.
package retryafter

import (
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
	if seconds, err := strconv.ParseInt(value, 10, 32); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		if date, err := http.ParseTime(header.Get("Date")); err == nil {
			now = date
		}
		wait = at.Sub(now)
	}
	return min(max(wait, 0), most)
}
