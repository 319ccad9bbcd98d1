package kmipevidence

import "time"

// RereadAtEachCall has the client read its files at the start of each call.
func RereadAtEachCall(c *Client) {
	files, err := c.config.follow(time.Nanosecond)
	if err != nil {
		panic(err)
	}
	c.pool.files = files
}

// ExpireCertificate has the client's certificate expire while it is in use.
func ExpireCertificate(c *Client) { c.pool.files.Latest().notAfter = time.Now().Add(-time.Second) }
