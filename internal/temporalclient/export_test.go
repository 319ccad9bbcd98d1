package temporalclient

import "time"

// RereadAlways has the files read again for each request.
func RereadAlways(request Request) Request {
	request.rereadAfter = time.Nanosecond
	return request
}
