package simulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// firstVersion of a new deployment's configuration.
	firstVersion = 41
	// keptTexts is how many different texts are remembered that readers got, to
	// know which one a publication was made from.
	keptTexts = 8
	// eventPublished is the type of the event of a publication.
	eventPublished = "AUTOMATION_CONFIG_PUBLISHED_AUDIT"
	lockPolicy     = "EXTERNALLY_MANAGED_LOCK"
	conflictCode   = "AUTOMATION_CONFIG_CONCURRENT_MODIFICATION"
	conflictDetail = "Another session or user has already published changes."
)

// Publication is an automation configuration that was sent by a PUT, or published
// by somebody else.
type Publication struct {
	At        time.Time `json:"at"`
	ProjectID string    `json:"projectId"`
	// By is the public key of a PUT, or the name of who published otherwise.
	By string `json:"by"`
	// Request is the Seq of the PUT, 0 for what was published otherwise.
	Request int `json:"request,omitempty"`
	// NoSecrets: it was sent to the path automationConfig/noSecrets.
	NoSecrets bool `json:"noSecrets,omitempty"`
	// Applied: it is or was the configuration. Refused is the errorCode otherwise, or
	// empty where a fault lost it.
	Applied bool   `json:"applied"`
	Refused string `json:"refused,omitempty"`
	// VersionBefore and VersionAfter are those of the project's configuration; equal
	// if it wasn't applied. VersionSent is in the text that was sent.
	VersionBefore int64 `json:"versionBefore"`
	VersionAfter  int64 `json:"versionAfter"`
	VersionSent   int64 `json:"versionSent"`
	// Size is the length of what was sent, in bytes.
	Size int `json:"size"`
	// Rotations are the processes that get another time, and Changes all other bytes
	// that differ, from the configuration that its sender had read. Whoever rotates
	// keys must make no such change.
	Rotations []RotationChange `json:"rotations"`
	Changes   []TextChange     `json:"changes"`
	// Overwrote are the changes of others that it undid, because they were made
	// after it was read.
	Overwrote []TextChange `json:"overwrote,omitempty"`
}

// IsPut reports whether it came by a PUT.
func (p Publication) IsPut() bool { return p.Request != 0 }

// event is an entry of a project's activity feed.
type event struct {
	ID       string    `json:"id"`
	TypeName string    `json:"typeName"`
	Created  time.Time `json:"created"`
	// PublicKey did it, or else Username.
	PublicKey string `json:"publicKey,omitempty"`
	Username  string `json:"username,omitempty"`
}

// lockSetting is another system's lock of a project.
type lockSetting struct {
	System   string   `json:"system,omitempty"`
	Policies []string `json:"policies,omitempty"`
	// Status is that of the answer to a PUT; 0 = PUTs are not refused.
	Status int `json:"status,omitempty"`
}

// servedText is a text that somebody has read.
type servedText struct {
	publicKey string
	noSecrets bool
	text      []byte
}

// Puts gives the PUTs of configurations of a project, or all for an empty
// id, whether or not they were applied.
func (l Ledger) Puts(projectID string) []Publication {
	var puts []Publication
	for _, p := range l.Publications {
		if p.IsPut() && (projectID == "" || p.ProjectID == projectID) {
			puts = append(puts, p)
		}
	}
	return puts
}

// MemberRotationsOf gives the new keys of a process, or of all of a project's
// processes if no process is named.
func (l Ledger) MemberRotationsOf(projectID, process string) []MemberRotation {
	var rotations []MemberRotation
	for _, r := range l.MemberRotations {
		if r.ProjectID == projectID && (process == "" || r.Process == process) {
			rotations = append(rotations, r)
		}
	}
	return rotations
}

// Violations says what no rotation of a project's deployment may do, with faults
// or without: change a byte of the configuration besides the times, set a time that
// is not later, or send the same time so that a process has it twice with another
// one in between; and which processes got two keys for one time.
func (l Ledger) Violations(projectID string) (found []string) {
	given := map[string][]string{} // the times that each process has been given
	for _, put := range l.Puts(projectID) {
		for _, c := range put.Changes {
			found = append(found, fmt.Sprintf("PUT %d changed other bytes at %s: %q to %q", put.Request, c.Path, c.Removed, c.Added))
		}
		for _, r := range put.Rotations {
			had := given[r.Process]
			switch {
			case r.After == "":
				found = append(found, fmt.Sprintf("PUT %d removed the time of %s", put.Request, r.Process))
			case !later(r.After, r.Before):
				found = append(found, fmt.Sprintf("PUT %d set the time of %s from %s to %s", put.Request, r.Process, r.Before, r.After))
			case slices.Contains(had, r.After) && had[len(had)-1] != r.After:
				found = append(found, fmt.Sprintf("PUT %d gave %s an earlier rotation's time %s", put.Request, r.Process, r.After))
			}
			given[r.Process] = append(had, r.After)
		}
	}
	acted := map[[2]string]bool{}
	for _, r := range l.MemberRotationsOf(projectID, "") {
		key := [2]string{r.Process, r.Time}
		if acted[key] {
			found = append(found, fmt.Sprintf("%s got two keys for %s", r.Process, r.Time))
		}
		acted[key] = true
	}
	return found
}

// Violations are those of this deployment's ledger: there must be none.
func (d *Deployment) Violations() []string { return d.ledger().Violations(d.ProjectID) }

// Puts gives the PUTs of this deployment's configuration.
func (d *Deployment) Puts() []Publication { return d.ledger().Puts(d.ProjectID) }

// Rotations gives the new keys of a process, or of all processes for an empty name.
func (d *Deployment) Rotations(process string) []MemberRotation {
	return d.ledger().MemberRotationsOf(d.ProjectID, process)
}

func (d *Deployment) ledger() (l Ledger) {
	d.locked(func(*deploymentRecord) { l = d.s.copyLedger() })
	return l
}

// automated finds the project's deployment, whose agents do first what is due; nil
// if the project has none.
func (s *Simulator) automated(c *call) (*deploymentRecord, *answer) {
	if refused := s.checkProject(c); refused != nil {
		return nil, refused
	}
	s.advance(c.route.projectID)
	return s.data.Deployments[c.route.projectID], nil
}

// automationAdmin is automated for a key that may see and change the
// configuration.
func (s *Simulator) automationAdmin(c *call) (*deploymentRecord, *answer) {
	d, refused := s.automated(c)
	switch {
	case refused != nil:
		return nil, refused
	case c.key.ReadOnly:
		return nil, unauthorized("USER_UNAUTHORIZED", "Current user is not authorized to perform this action.")
	case c.route.isNoSecrets() && d != nil && d.Options.WithoutNoSecrets:
		return nil, apiError(http.StatusNotFound, "RESOURCE_NOT_FOUND", "Cannot find resource "+c.route.path+".", c.route.path)
	}
	return d, nil
}

func (p *route) isNoSecrets() bool { return strings.HasSuffix(p.path, "/noSecrets") }

func (s *Simulator) getAutomationConfig(c *call) answer {
	d, refused := s.automationAdmin(c)
	if refused != nil {
		return *refused
	}
	text := []byte(`{"version":0,"processes":[],"replicaSets":[],"sharding":[]}`)
	if d != nil {
		text = d.shown(c.route.isNoSecrets())
		d.noteServed(servedText{c.entry.PublicKey, c.route.isNoSecrets(), text})
	}
	return answer{status: http.StatusOK, raw: text, contentType: contentTypeJSON}
}

// shown is the text as it is answered. Nobody changes its bytes.
func (d *deploymentRecord) shown(noSecrets bool) []byte {
	if !noSecrets {
		return d.Text
	}
	if d.hidden == nil {
		d.hidden = withoutSecrets(d.Text)
	}
	return d.hidden
}

func (d *deploymentRecord) setText(text []byte) {
	d.Text, d.hidden = text, nil
	d.index()
}

// index reads what the agents need of the text.
func (d *deploymentRecord) index() {
	d.times, d.pinned = map[string]string{}, map[string]bool{}
	for _, p := range processesOf(d.Text) {
		d.times[p.name], d.pinned[p.name] = p.time(d.Text), p.pinned
	}
}

func (d *deploymentRecord) noteServed(s servedText) {
	d.served = slices.DeleteFunc(d.served, func(other servedText) bool {
		return other.isFor(s.publicKey, s.noSecrets) && bytes.Equal(other.text, s.text)
	})
	d.served = append(d.served, s)
	d.served = d.served[max(len(d.served)-keptTexts, 0):]
}

// readBy is the text that a publication was made from, in the form in which it
// was sent: of those that its sender read, the one that differs in nothing but
// times, or else the latest of the same version, or else what is there.
func (d *deploymentRecord) readBy(publicKey string, noSecrets bool, sent []byte) (text []byte, rotations []RotationChange, changes []TextChange) {
	text = d.shown(noSecrets)
	for _, s := range d.served {
		if s.isFor(publicKey, noSecrets) && versionOf(s.text) == versionOf(sent) {
			text = s.text
		}
	}
	rotations, changes = changesBetween(text, sent)
	for _, s := range slices.Backward(d.served) {
		if len(changes) == 0 {
			break
		}
		if !s.isFor(publicKey, noSecrets) {
			continue
		}
		if r, none := changesBetween(s.text, sent); len(none) == 0 {
			text, rotations, changes = s.text, r, nil
		}
	}
	return text, rotations, changes
}

func (s servedText) isFor(publicKey string, noSecrets bool) bool {
	return s.publicKey == publicKey && s.noSecrets == noSecrets
}

// beginPublication checks a PUT of a configuration and applies it now, later or
// not at all.
func (s *Simulator) beginPublication(c *call, f Fault) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, refused := s.automationAdmin(c)
	switch {
	case refused != nil:
		return refused
	case d == nil:
		return apiError(http.StatusBadRequest, "INVALID_ATTRIBUTE", "This simulated project has no deployment.")
	case c.bodyErr != nil || !isConfiguration(c.body):
		refused = apiError(http.StatusBadRequest, "INVALID_JSON", "Received JSON is not a valid automation configuration.")
	case d.Lock.Status == http.StatusUnauthorized:
		refused = unauthorized(lockPolicy, "The automation configuration is managed by "+d.Lock.System+".")
	case d.Lock.Status != 0:
		refused = apiError(d.Lock.Status, "CHANGE_NOT_ALLOWED_EXTERNAL_SYSTEM", "The change is not allowed: the project is managed by "+d.Lock.System+".")
	case d.Conduct.RefuseStale && versionOf(c.body) != d.Version:
		refused = apiError(http.StatusConflict, conflictCode, conflictDetail)
	}
	if refused != nil {
		p := s.describePut(c, d)
		p.Refused, _ = refused.body["errorCode"].(string)
		s.data.Publications = append(s.data.Publications, p)
		s.announce()
		return refused
	}
	switch f.Apply {
	case ApplyNo:
		s.data.Publications = append(s.data.Publications, s.describePut(c, d))
		s.announce()
	case ApplyLate:
		s.applyLater(c, f, func() {
			if s.data.Deployments[d.Options.ProjectID] == d {
				_ = s.applyPut(c, d)
			}
		})
	default:
		return s.applyPut(c, d)
	}
	return nil
}

// describePut says what a PUT would change.
func (s *Simulator) describePut(c *call, d *deploymentRecord) Publication {
	p := Publication{
		At: s.now(), ProjectID: d.Options.ProjectID, By: c.entry.PublicKey, Request: c.entry.Seq, NoSecrets: c.route.isNoSecrets(),
		VersionBefore: d.Version, VersionAfter: d.Version, Size: len(c.body),
	}
	if !isConfiguration(c.body) {
		p.Changes = []TextChange{{Path: "/", Added: beginning(c.body), AddedBytes: len(c.body)}}
		return p
	}
	p.VersionSent = versionOf(c.body)
	var read []byte
	read, p.Rotations, p.Changes = d.readBy(p.By, p.NoSecrets, c.body)
	lostTimes, lost := changesBetween(read, d.shown(p.NoSecrets))
	for _, r := range lostTimes {
		lost = append(lost, TextChange{Path: fmt.Sprintf("/processes/%s/%s", r.Process, rotationField), Removed: r.Before, Added: r.After})
	}
	p.Overwrote = lost
	return p
}

func (s *Simulator) applyPut(c *call, d *deploymentRecord) *answer {
	p := s.describePut(c, d)
	text := c.body
	if p.NoSecrets {
		text = withSecretsOf(text, d.Text)
	}
	for _, m := range d.Conduct.Modifies {
		text = m.of(text)
	}
	if err := s.install(d, p, text, event{PublicKey: p.By}); err != nil {
		return unexpectedError()
	}
	c.entry.Applied = true
	s.announce()
	return nil
}

// publishAs publishes a text in the name of somebody who does not use this API.
func (s *Simulator) publishAs(d *deploymentRecord, by string, text []byte) {
	p := Publication{
		At: s.now(), ProjectID: d.Options.ProjectID, By: by, VersionBefore: d.Version,
		VersionSent: versionOf(text), Size: len(text),
	}
	p.Rotations, p.Changes = changesBetween(d.Text, text)
	if err := s.install(d, p, text, event{Username: by}); err != nil {
		panic("simulator: " + err.Error())
	}
	s.announce()
}

// install makes a text the configuration. One that can't be kept in the state file
// isn't installed.
func (s *Simulator) install(d *deploymentRecord, p Publication, text []byte, e event) error {
	former, publications, nextID := *d, s.data.Publications, s.data.NextID
	d.previous = d.Text
	d.Version += d.Conduct.VersionStep
	d.setText(withVersion(text, d.Version))
	p.Applied, p.VersionAfter = true, d.Version
	s.data.Publications = append(publications, p)
	d.NextGoal = &goal{Version: d.Version, At: p.At.Add(d.Conduct.GoalAfter), Times: d.times}
	s.data.NextID++
	e.ID, e.TypeName, e.Created = fmt.Sprintf("5e000000%016x", s.data.NextID), eventPublished, p.At
	d.Events = append(d.Events, e)
	if err := s.save(); err != nil {
		former.wake = d.wake
		*d, s.data.Publications, s.data.NextID = former, publications, nextID
		return err
	}
	s.advance(d.Options.ProjectID)
	return nil
}

// of is a text as Ops Manager keeps it.
func (m Modification) of(text []byte) []byte {
	switch m {
	case ModifyAddsFields:
		for _, p := range processesOf(text) {
			text = withValue(text, `{"normalized":1.0}`, pathOfProcess(text, p.name, "addedByOpsManager")...)
		}
		return withValue(text, `"2026-01-01T00:00:00Z"`, "addedByOpsManager")
	case ModifyReformatsTime:
		return eachTime(text, func(at time.Time) string { return strconv.Quote(at.UTC().Format("2006-01-02T15:04:05.000+0000")) })
	case ModifyNumbersTime:
		return eachTime(text, func(at time.Time) string { return strconv.FormatInt(at.UnixMilli(), 10) })
	case ModifyReorders:
		var value map[string]any
		if json.Unmarshal(text, &value) != nil {
			return text
		}
		return marshal(value, false)
	case ModifyDropsTimes:
		for _, p := range processesOf(text) {
			text = without(text, pathOfProcess(text, p.name, rotationField)...)
		}
	}
	return text
}

func eachTime(text []byte, form func(time.Time) string) []byte {
	for _, p := range processesOf(text) {
		if at, ok := timeOf(p.time(text)); ok {
			text = withValue(text, form(at), pathOfProcess(text, p.name, rotationField)...)
		}
	}
	return text
}
