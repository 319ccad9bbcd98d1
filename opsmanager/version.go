package opsmanager

import (
	"net/http"
	"regexp"
	"strconv"
)

// serviceVersionHeader is on the 200 responses of Ops Manager and of Cloud
// Manager, for example "gitHash=4c1f0d2e9b; versionString=8.0.6.500.20250401T1200Z".
const serviceVersionHeader = "X-MongoDB-Service-Version"

// ServiceVersion is the version of the Ops Manager that answered last. It is a
// part of recorded histories.
type ServiceVersion struct {
	// Text is the version as the server writes it, for example
	// "8.0.6.500.20250401T1200Z"; empty if no response has named one.
	Text string `json:"text,omitempty"`
	// Major and Minor are the first two numbers of Text; 0 if Text does not
	// begin with a number, as that of Cloud Manager does not.
	Major int `json:"major,omitempty"`
	Minor int `json:"minor,omitempty"`
}

var (
	versionString = regexp.MustCompile(`(?i)versionString\s*=\s*"?([!-~]{1,100}?)"?\s*(?:;|$)`)
	bareVersion   = regexp.MustCompile(`^\s*v?([0-9]+(?:\.[!-:<-~]{1,100})?)\s*(?:;|$)`)
	versionNumber = regexp.MustCompile(`^v?([0-9]{1,4})(?:\.([0-9]{1,4}))?(?:[^0-9]|$)`)
)

// parseServiceVersion reads the header's value; false = it names no version.
func parseServiceVersion(value string) (ServiceVersion, bool) {
	found := versionString.FindStringSubmatch(value)
	if found == nil {
		found = bareVersion.FindStringSubmatch(value)
	}
	if found == nil {
		return ServiceVersion{}, false
	}
	version := ServiceVersion{Text: found[1]}
	if numbers := versionNumber.FindStringSubmatch(version.Text); numbers != nil {
		version.Major, _ = strconv.Atoi(numbers[1])
		version.Minor, _ = strconv.Atoi(numbers[2]) // "" = 0
	}
	return version, true
}

func (c *Client) noteVersion(header http.Header) {
	if version, ok := parseServiceVersion(header.Get(serviceVersionHeader)); ok {
		c.version.Store(&version)
	}
}

// ServiceVersion returns the version that the last successful response with an
// X-MongoDB-Service-Version header named; the zero value if there was none yet.
func (c *Client) ServiceVersion() ServiceVersion {
	if version := c.version.Load(); version != nil {
		return *version
	}
	return ServiceVersion{}
}
