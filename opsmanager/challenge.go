package opsmanager

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"regexp"
	"strings"

	"github.com/icholy/digest"
)

// maxChallengeParameter is the longest parameter of a challenge, in bytes, that
// is sent back.
const maxChallengeParameter = 4096

// authChallenge is one challenge of a WWW-Authenticate header (RFC 9110,
// section 11.6.1).
type authChallenge struct {
	scheme     string
	parameters map[string]string // by name in lower case
	// malformed: a parameter is repeated or cannot be read.
	malformed bool
}

// The parts of a challenge. An unquoted value may hold what a token may not,
// such as the padding of a nonce in Base64.
var (
	parameterPattern = regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:\"((?:[^\"\\\\]|\\\\.)*)\"|([^ \t,\"]+))")
	schemePattern    = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+")
	token68Pattern   = regexp.MustCompile(`^[0-9A-Za-z._~+/-]+=*[ \t]*(?:,|$)`)
	quotedPair       = regexp.MustCompile(`(?s)\\(.)`)
)

// parseChallenges reads the challenges of one header line, in their order. The
// comma separates both challenges and their parameters, and may be repeated or
// be the last character.
func parseChallenges(line string) (challenges []authChallenge) {
	for {
		line = strings.TrimLeft(line, " \t,")
		if line == "" {
			return challenges
		}
		last := len(challenges) - 1
		if found := parameterPattern.FindStringSubmatch(line); found != nil && last >= 0 {
			challenges[last].add(found)
			line = line[len(found[0]):]
			continue
		}
		scheme := schemePattern.FindString(line)
		if scheme == "" || parameterPattern.MatchString(line) {
			if last >= 0 {
				challenges[last].malformed = true
			}
			return challenges // the rest cannot be read
		}
		challenges = append(challenges, authChallenge{scheme: scheme, parameters: map[string]string{}})
		line = strings.TrimLeft(line[len(scheme):], " \t")
		line = line[len(token68Pattern.FindString(line)):]
	}
}

func (c *authChallenge) add(parameter []string) {
	name, value := strings.ToLower(parameter[1]), quotedPair.ReplaceAllString(parameter[2], "$1")+parameter[3]
	if _, repeated := c.parameters[name]; repeated {
		c.malformed = true
	}
	c.parameters[name] = value
}

// challenge is a digest challenge that can be answered.
type challenge struct {
	digest.Challenge
	// algorithm is the challenge's own spelling; the Challenge has the base
	// algorithm, without -sess.
	algorithm string
	session   bool // the algorithm is a -sess one
	hasOpaque bool
}

var (
	errNoChallenge = errors.New("the 401 response has no WWW-Authenticate header")
	// hashes has the algorithms that the digest library computes.
	hashes = map[string]func() hash.Hash{
		"MD5": md5.New, "SHA-256": sha256.New, "SHA-512-256": sha512.New512_256, "SHA-512": sha512.New,
	}
)

// findChallenge returns the first digest challenge of a 401 response that can be
// answered. Its error quotes the challenges.
func findChallenge(header http.Header) (*challenge, error) {
	lines := header.Values("WWW-Authenticate")
	for _, line := range lines {
		for _, parsed := range parseChallenges(line) {
			if c, ok := parsed.digest(); ok {
				return c, nil
			}
		}
	}
	if len(lines) == 0 {
		return nil, errNoChallenge
	}
	return nil, fmt.Errorf("the 401 response has no digest challenge that can be answered: WWW-Authenticate: %s", strings.Join(lines, ", "))
}

// digest returns the challenge as a digest one; false = it is another scheme's,
// or cannot be answered.
func (c authChallenge) digest() (*challenge, bool) {
	p := c.parameters
	if !strings.EqualFold(c.scheme, "Digest") || c.malformed || p["nonce"] == "" {
		return nil, false
	}
	for _, name := range []string{"realm", "nonce", "opaque"} {
		if len(p[name]) > maxChallengeParameter || strings.ContainsFunc(p[name], func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			return nil, false
		}
	}
	found := &challenge{algorithm: p["algorithm"]}
	base, session := strings.CutSuffix(strings.ToUpper(found.algorithm), "-SESS")
	if base == "" {
		base = "MD5"
	}
	qop, ok := chooseQOP(p["qop"])
	if !ok || hashes[base] == nil {
		return nil, false
	}
	found.session = session
	_, found.hasOpaque = p["opaque"]
	found.Challenge = digest.Challenge{
		Realm: p["realm"], Nonce: p["nonce"], Opaque: p["opaque"], Algorithm: base, QOP: qop,
		Stale: strings.EqualFold(p["stale"], "true"), Userhash: strings.EqualFold(p["userhash"], "true"),
	}
	return found, true
}

// chooseQOP prefers auth to auth-int. A challenge without a quality of
// protection is one of RFC 2069; one with only unknown ones cannot be answered.
func chooseQOP(offered string) (chosen []string, ok bool) {
	options := map[string]bool{}
	for _, option := range strings.FieldsFunc(strings.ToLower(offered), func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		options[option] = true
	}
	switch {
	case options["auth"]:
		return []string{"auth"}, true
	case options["auth-int"]:
		return []string{"auth-int"}, true
	}
	return nil, len(options) == 0
}

// withNonce is the same challenge with the nonce that an accepted response names
// for the next request.
func (c *challenge) withNonce(value string) *challenge {
	next := *c
	next.Nonce, next.Stale = value, false
	return &next
}

// nextNonce reads the nextnonce of an Authentication-Info header (RFC 7616,
// section 3.5); empty = there is none that can be used.
func nextNonce(header http.Header) string {
	info := header.Get("Authentication-Info")
	if info == "" {
		return ""
	}
	for _, parsed := range parseChallenges("Digest " + info) {
		parsed.parameters["nonce"] = parsed.parameters["nextnonce"]
		if c, ok := parsed.digest(); ok {
			return c.Nonce
		}
	}
	return ""
}

// answer computes the Authorization header for one request.
func (c *challenge) answer(with credentials, r request, count int, cnonce string) (string, error) {
	options := digest.Options{
		Method: r.method, URI: r.target(), Count: count, Username: with.publicKey, Password: with.privateKey, Cnonce: cnonce,
	}
	if r.body != nil { // auth-int covers it
		options.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.body)), nil }
	}
	if c.session {
		options.A1 = c.hash(c.hash(with.publicKey, c.Realm, with.privateKey), c.Nonce, cnonce)
	}
	computed, err := digest.Digest(&c.Challenge, options)
	if err != nil {
		return "", err
	}
	return c.format(computed, cnonce), nil
}

func (c *challenge) hash(parts ...string) string {
	h := hashes[c.Challenge.Algorithm]()
	h.Write([]byte(strings.Join(parts, ":"))) // a hash returns no error
	return hex.EncodeToString(h.Sum(nil))
}

// format writes the header's value. The library's own quotes text as Go does,
// with escapes that no server knows, and does not know the -sess algorithms.
func (c *challenge) format(computed *digest.Credentials, cnonce string) string {
	var b strings.Builder
	quoted := func(name, value string) { fmt.Fprintf(&b, `, %s="%s"`, name, quoteEscapes.Replace(value)) }
	plain := func(name, value string) { fmt.Fprintf(&b, ", %s=%s", name, value) }
	fmt.Fprintf(&b, `Digest username="%s"`, quoteEscapes.Replace(computed.Username))
	quoted("realm", c.Realm)
	quoted("nonce", c.Nonce)
	quoted("uri", computed.URI)
	if c.algorithm != "" {
		plain("algorithm", c.algorithm)
	}
	if computed.QOP != "" || c.session {
		quoted("cnonce", cnonce)
	}
	if c.hasOpaque {
		quoted("opaque", c.Opaque)
	}
	if computed.QOP != "" {
		plain("qop", computed.QOP)
		plain("nc", fmt.Sprintf("%08x", computed.Nc))
	}
	if computed.Userhash {
		plain("userhash", "true")
	}
	quoted("response", computed.Response)
	return b.String()
}

var quoteEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)
