package main

// clientMutations change the Ops Manager client.
var clientMutations = []mutation{
	// At most one PUT
	{"an unknown outcome counts as a refusal", "opsmanager/errors.go",
		`OutcomeUnknown: r.method == http.MethodPut && mayHaveApplied(a.status),`, `OutcomeUnknown: false,`, activityTests},
	{"a lost response counts as a request that was not sent", "opsmanager/errors.go",
		`OutcomeUnknown: r.method == http.MethodPut && sent, cause: err,`, `OutcomeUnknown: r.method == http.MethodPut && sent && false, cause: err,`, activityTests},
	{"a PUT is canceled with its caller's context", "opsmanager/client.go",
		`ctx = context.WithoutCancel(ctx) // an interrupted PUT has an unknown outcome`, `_ = ctx`, clientTests},
	{"the check right before a PUT is skipped", "opsmanager/client.go",
		`if r.beforeSend != nil {`, `if r.beforeSend != nil && r.method == "" {`, clientTests},
	// Verification and records
	{"a response about another cluster is accepted", "opsmanager/keys.go",
		`return strings.EqualFold(k.ClusterID, clusterID) && strings.EqualFold(k.GroupID, projectID)`, `return !strings.EqualFold(k.ClusterID, "never")`, clientTests},
	{"somebody else's JSON is a backup that is not encrypted", "opsmanager/keys.go",
		`case !hasKey && (isAbout || isBareKey(a.body)):`, `case !hasKey:`, clientTests},
	{"a date to retry after is compared with this machine's clock", "internal/retryafter/retryafter.go",
		`if date, err := http.ParseTime(header.Get("Date")); err == nil {`, `if date, err := http.ParseTime(header.Get("Date")); err == nil && date.IsZero() {`, clientTests},
	// No loss of records
	{"only the first page of a list is read", "opsmanager/list.go",
		`p.ended = next.isLast(len(p.keys)) || len(p.keys) == before`, `p.ended = len(p.keys) > 0 || len(p.keys) == before`, clientTests},
	{"a list of several pages is read once", "opsmanager/list.go",
		`case p.pages == 1 && !p.isShort():`, `case !p.isShort():`, clientTests},
	{"a pass during which the total changed is believed", "opsmanager/list.go",
		`return other != nil && !p.unsteady && !other.unsteady &&`, `return other != nil &&`, clientTests},
	{"an odd shard is left out of a list", "opsmanager/clusters.go",
		`case !mayBeTarget(raw):`, `case !ValidID(c.ID):`, clientTests},
	{"an odd entry fails a list", "opsmanager/clusters.go",
		`case !mayBeTarget(raw):`, `case len(raw) == 0:`, clientTests},
	{"a login page accepts a PUT", "opsmanager/keys.go",
		`return c.checkAccepted(r, a, projectID, clusterID)`, `a.body = nil
	return c.checkAccepted(r, a, projectID, clusterID)`, clientTests},
	{"a PUT that a login page answered was not carried out", "opsmanager/client.go",
		`apiError.OutcomeUnknown = true`, `apiError.OutcomeUnknown = false`, clientTests},
	{"a redirect is proof that a PUT was not carried out", "opsmanager/errors.go",
		`return status < 400`, `return status < 300`, clientTests},
	// Fleets
	{"the response about a project is quoted in errors", "opsmanager/projects.go",
		`r.secret = true`, `r.secret = false`, clientTests},
	// Rate limits and retries
	{"a 429 does not slow requests down", "opsmanager/limits.go",
		`l.pauseUntil(now.Add(l.backoff))`, `l.pauseUntil(now)`, clientTests},
	{"Retry-After is ignored", "internal/retryafter/retryafter.go",
		`return min(max(wait, 0), most)`, `return min(max(wait, 0), 0)`, clientTests},
	{"a Retry-After that is too large for a number is ignored", "internal/retryafter/retryafter.go",
		`errors.Is(err, strconv.ErrRange)`, `errors.Is(err, http.ErrBodyNotAllowed)`, retryAfterTests},
	{"a Retry-After of centuries overflows", "internal/retryafter/retryafter.go",
		`min(max(seconds, 0), int64(most/time.Second)+1)`, `seconds`, retryAfterTests},
	{"a stale nonce counts as wrong credentials", "opsmanager/digest.go",
		`unexplained := !next.Stale && (fresh`, `unexplained := (fresh`, clientTests},
	{"one nonce is used out of order", "opsmanager/digest.go",
		`if n.users == 0 || p.sharing != sharingRefused {`, `if n != nil {`, clientTests},
	{"one refusal is proof of wrong credentials", "opsmanager/digest.go",
		`maxRefusals = 12`, `maxRefusals = 1`, clientTests},
	{"only the newest challenge is answered", "opsmanager/digest.go",
		`sendingsPerNonce = 3`, `sendingsPerNonce = 1`, clientTests},
	{"the answer to a challenge goes over any connection", "opsmanager/connections.go",
		`return &connection{transport: p.newTransport()}`, `if p.newTransport != nil {
		shared := p.newTransport()
		p.newTransport = func() http.RoundTripper { return shared }
	}
	return &connection{transport: p.newTransport()}`, clientTests},
	{"auth-int is preferred to auth", "opsmanager/challenge.go",
		`case options["auth"]:`, `case options["auth"] && !options["auth-int"]:`, clientTests},
	{"the session key of -sess is left out", "opsmanager/challenge.go",
		`if c.session {
		options.A1`, `if c.session && cnonce == "" {
		options.A1`, clientTests},
	{"a challenge that cannot be answered is wrong credentials", "opsmanager/digest.go",
		`case errors.Is(err, errNoChallenge) && n != nil:`, `case err != nil && cap(a.body) >= 0:`, clientTests},
	{"an unreadable block of a CA bundle is passed over", "internal/pemtext/pemtext.go",
		`return blocks, checkOutside(text, offset, len(text))`, `return blocks, nil`, []string{"./internal/pemtext"}},
	{"an unreadable block between two is passed over", "internal/pemtext/pemtext.go",
		`if err := checkOutside(text, offset, begin); err != nil {`, `if err := checkOutside(text, begin, begin); err != nil {`, []string{"./internal/pemtext"}},
	{"a certificate and its key are taken from one file", "internal/pemtext/pemtext.go",
		`if block.Type != certificateBlock || len(block.Headers) > 0 {`, `if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if block.Type != certificateBlock || len(block.Headers) > 0 {`, []string{"./internal/kmipevidence", "-run", "Config"}},
	{"an invisible character of a key is sent", "opsmanager/config.go",
		`if at, found := firstInvisible(key); found {`, `if at, found := firstInvisible(key[:0]); found {`, clientTests},
	{"an escape in the base URL is sent", "opsmanager/config.go",
		`case strings.Contains(c.BaseURL, "%"):`, `case strings.Contains(c.BaseURL, "%%"):`, clientTests},
	{"an expired client certificate is taken", "internal/pemtext/pemtext.go",
		`case now.After(certificate.NotAfter):`, `case certificate.NotAfter.IsZero():`, clientTests},
	{"a proxy's 407 is an outage", "opsmanager/peer.go",
		`case r.status == http.StatusProxyAuthRequired:`, `case r.status == 0:`, clientTests},
	{"a required client certificate is an outage", "opsmanager/peer.go",
		`case about || strings.Contains(text, "handshake failure")`, `case strings.Contains(text, "handshake failure")`, clientTests},
	{"an unusable proxy is ignored", "internal/proxy/proxy.go",
		`if value != "" && !isProxy(value)`, `if value == "never" && !isProxy(value)`, clientTests},
	{"new calls keep the old credentials", "opsmanager/client.go",
		`c.session.Swap(s).connections.close()`, `s.connections.close()`, clientTests},
	// Input, secrets, settings
	{"the private key is repeated in errors", "opsmanager/errors.go",
		`s.credentials.privateKey, "[private key]")`, `"", "")`, clientTests},
	{"plain http is accepted for any host", "opsmanager/config.go",
		`!c.AllowHTTP && !isLoopback(u.Hostname())`, `!c.AllowHTTP && u.Hostname() == ""`, clientTests},
	{"ids are not checked", "opsmanager/client.go",
		`if !ValidID(id) {`, `if id == "never" {`, clientTests},
	// Metrics and health
	{"a failed call counts as a success", "opsmanager/keys.go",
		`	defer func() { c.ended(r, err) }()
	r.beforeSend`, `	defer func() { c.ended(r, nil) }()
	r.beforeSend`, clientTests},
	{"a user name with a colon is sent", "opsmanager/config.go",
		"if strings.ContainsAny(c.PublicKey, `:\\\"`) {", `if c.PublicKey == ":" {`, clientTests},
	// Automation configurations
	{"a configuration without secrets is published where it replaces them", "opsmanager/automationconfig.go",
		`if config.HasNoSecrets() {`, `if config.HasNoSecrets() && path == "" {`, clientTests},
	{"an error quotes a configuration", "opsmanager/errors.go",
		`if r.document {
			if !codePattern`, `if r.document && body.Detail == "" {
			if !codePattern`, clientTests},
	{"a connection stays open after a configuration", "opsmanager/client.go",
		`req.Close = r.document`, `req.Close = false`, clientTests},
	{"a rotation time is added without a comma", "opsmanager/automationlayout.go",
		`":" + value + ","`, `":" + value`, clientTests},
	{"a byte beside the rotation time changes", "opsmanager/automationlayout.go",
		`found.from = found.to - len(value)`, `found.from = found.to - len(value) + 1`, clientTests},
	{"processes that restart change the list of processes", "opsmanager/hosts.go",
		`return Host{ID: h.ID, ClusterID: h.ClusterID, Hostname: h.Hostname, Port: h.Port}, h.ID`, `return Host{ID: h.ID, LastRestart: h.LastRestart}, h.ID`, []string{"./opsmanager", "-run", "HostsThatRestart"}},
}
