package activities

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"

	"keyturn/internal/ellipsis"
	"keyturn/internal/kmipevidence"
	"keyturn/opsmanager"
)

// ProveRotationInput names one replica set, all members of which have arrived.
type ProveRotationInput struct {
	Scope
	// ClusterID is that of the top-level cluster, which has the snapshots.
	ClusterID  string    `json:"clusterId"`
	ReplicaSet string    `json:"replicaSet"` // its id in the automation configuration
	RotateAt   time.Time `json:"rotateAt"`   // the time that was published
	// Parts is how many replica sets the cluster has, which decides how many of its
	// snapshots one request reads; 0 = 32.
	Parts int `json:"parts,omitempty"`
	// Members are all processes of the replica set that were rotated.
	Members []MemberToProve `json:"members"`
	// EarlierKeys are the KeyUUIDs that ListProcesses returned for the replica set.
	// Keys of snapshots that were taken since then and before RotateAt are added.
	EarlierKeys []string `json:"earlierKeys,omitempty"`
	// Proof is ProofSnapshot or ProofKMIP.
	Proof Proof `json:"proof"`
	// Deadline is until when a snapshot is waited for, by Temporal's clock. The
	// snapshots are read at least once.
	Deadline time.Time `json:"deadline"`
	// PollInterval is the pause between two readings of the snapshots; 0 = 5 minutes,
	// or a twentieth of the time from RotateAt to Deadline if that is shorter.
	PollInterval Duration `json:"pollInterval,omitzero"`
}

// MemberToProve is a member of the replica set.
type MemberToProve struct {
	// Process is its name in the automation configuration.
	Process string `json:"process"`
	// Host is "hostname:port", as ListProcesses returned it.
	Host string `json:"host"`
	// RestartedAt is that of AwaitRotation. A snapshot that was begun before the last
	// member restarted is not considered.
	RestartedAt time.Time `json:"restartedAt"`
	// PreviousKeyUUID is its key before, where a snapshot of this very member named
	// it; "" = not known.
	PreviousKeyUUID string `json:"previousKeyUUID,omitempty"`
	// PreviousRotateAt is that of ListProcesses. The key of a snapshot that was begun
	// sooner than 24 h after it may be the one before.
	PreviousRotateAt string `json:"previousRotateAt,omitempty"`
}

// ProvenBy says what has shown that a key is new.
type ProvenBy string

// Values of ProvenBy.
const (
	// ProvenBySnapshot: a snapshot of a member whose earlier key is known names
	// another key.
	ProvenBySnapshot ProvenBy = "snapshot"
	// ProvenByKMIP: a snapshot names a key that no earlier snapshot of the replica
	// set names, and the KMIP server says that it was made after the rotation began.
	ProvenByKMIP ProvenBy = "kmip"
	// ProvenByBoth: both.
	ProvenByBoth ProvenBy = "snapshotAndKMIP"
)

// ProveRotationResult says whether a snapshot shows a new key of the replica set. Each
// member has a key of its own: of the others, nothing is shown.
type ProveRotationResult struct {
	// Proven: it does.
	Proven bool `json:"proven"`
	// Process is the member that the snapshot was taken from, and Host its
	// "hostname:port"; "" = the snapshot does not say.
	Process string `json:"process,omitempty"`
	Host    string `json:"host,omitempty"`
	// SnapshotID is the snapshot that is the proof, or, where nothing is proven, the
	// last one that was considered.
	SnapshotID string `json:"snapshotId,omitempty"`
	// NewKeyUUID is the key that is proven to be new.
	NewKeyUUID string `json:"newKeyUUID,omitempty"`
	// PreviousKeyUUID is that member's key before; "" = not known.
	PreviousKeyUUID string    `json:"previousKeyUUID,omitempty"`
	ProvenBy        ProvenBy  `json:"provenBy,omitempty"` // "" unless Proven
	ProvenAt        time.Time `json:"provenAt,omitzero"`  // when the snapshot was read
	// KMIP is what the KMIP server says about the new key; nil = it was not asked.
	KMIP *kmipevidence.Evidence `json:"kmip,omitempty"`
	// Reason is why nothing was proven until Deadline, of at most 500 characters.
	Reason string `json:"reason,omitempty"`
}

const (
	// maxSnapshotPoll is the longest default pause between two readings of the
	// snapshots: they are taken hours apart.
	maxSnapshotPoll = 5 * time.Minute
	// maxPollWithin is the longest pause that an attempt waits itself. A longer one
	// is Temporal's, between two attempts, so that it holds no slot of a worker.
	maxPollWithin = 10 * time.Second
	// defaultParts keeps pages of clusters with up to four times as many replica sets
	// below what the client reads of one response.
	defaultParts = 32
)

// ProveRotation waits for a snapshot that was begun after the last member restarted,
// and that shows a new key. It changes nothing. Each transient error is retried for
// RetryTimeout. A snapshot in which a member still has its earlier key is
// KeyUnchanged.
//
// A snapshot proves nothing where its key may be another member's earlier one. The
// KMIP server is asked about a new key where the connection has one, within
// evidenceTimeout; only with ProofKMIP is its answer required.
func (a *Activities) ProveRotation(ctx context.Context, in ProveRotationInput) (ProveRotationResult, error) {
	ctx, at, err := a.startAttempt(ctx, in.Scope)
	if err != nil {
		return ProveRotationResult{}, err
	}
	defer at.finish()
	if err := in.check(); err != nil {
		return ProveRotationResult{}, err
	}
	for {
		snapshots, err := at.readSnapshots(ctx, in.ClusterID, cmp.Or(in.Parts, defaultParts))
		if err != nil {
			return ProveRotationResult{}, at.failure(err)
		}
		p := newProof(in, snapshots, func(key string) *kmipevidence.Evidence { return a.evidence(ctx, at, key) })
		result, err := p.find()
		if err != nil {
			return ProveRotationResult{}, at.failure(err)
		}
		if result.Proven {
			result.ProvenAt = at.timestamp()
			return result, nil
		}
		remaining := in.Deadline.Sub(at.serverTime(time.Now()))
		if remaining <= 0 {
			activity.GetLogger(ctx).Warn("rotation not proven", "replicaSet", in.ReplicaSet, "reason", result.Reason)
			return result, nil
		}
		pause := min(in.pollInterval(), remaining)
		if pause > maxPollWithin {
			return ProveRotationResult{}, interrupted("not proven yet: "+result.Reason, pause)
		}
		if err := at.wait(ctx, pause); err != nil {
			return ProveRotationResult{}, at.failure(err)
		}
	}
}

func (in ProveRotationInput) check() error {
	switch {
	case in.Proof != ProofSnapshot && in.Proof != ProofKMIP:
		return permanent(ErrorInvalidInput, "proof: must be %q or %q", ProofSnapshot, ProofKMIP)
	case len(in.Members) == 0:
		return permanent(ErrorInvalidInput, "members: at least one is required")
	}
	return nil
}

func (in ProveRotationInput) pollInterval() time.Duration {
	if in.PollInterval > 0 {
		return in.PollInterval.Std()
	}
	return min(max(in.Deadline.Sub(in.RotateAt)/20, 20*time.Millisecond), maxSnapshotPoll)
}

// proof looks for a proof in one reading of the snapshots.
type proof struct {
	in      ProveRotationInput
	parts   []keyedPart // of the replica set, that may show new keys, the oldest first
	earlier map[string]bool
	members map[string]*memberKeys // by hostKey
	ask     func(key string) *kmipevidence.Evidence
	// lastRestart is that of the last member. What was begun before may have an earlier
	// key.
	lastRestart time.Time
}

// memberKeys is what is known of a member's keys before the rotation.
type memberKeys struct {
	MemberToProve                 // with the newest key as PreviousKeyUUID
	earlier       map[string]bool // all that snapshots name
	// newest is when the newest of the snapshots was begun that name an earlier key.
	newest time.Time
}

func newProof(in ProveRotationInput, snapshots []opsmanager.Snapshot, ask func(string) *kmipevidence.Evidence) *proof {
	p := &proof{in: in, earlier: map[string]bool{}, members: map[string]*memberKeys{}, ask: ask}
	for _, key := range in.EarlierKeys {
		p.earlier[key] = true
	}
	for _, member := range in.Members {
		keys := &memberKeys{MemberToProve: member, earlier: map[string]bool{}}
		if member.PreviousKeyUUID != "" {
			keys.earlier[member.PreviousKeyUUID], p.earlier[member.PreviousKeyUUID] = true, true
		}
		p.members[hostKey(member.Host)] = keys
		if member.RestartedAt.After(p.lastRestart) {
			p.lastRestart = member.RestartedAt
		}
	}
	for _, s := range snapshots {
		p.add(s)
	}
	slices.SortStableFunc(p.parts, func(a, b keyedPart) int { return a.created.Compare(b.created) })
	return p
}

// add adds a snapshot: one from before the rotation shows earlier keys, one from
// after it may show new ones. Between the two, either may be.
func (p *proof) add(s opsmanager.Snapshot) {
	if s.Created.IsZero() {
		return
	}
	for _, part := range s.Parts {
		if part.ReplicaSetName != p.in.ReplicaSet {
			continue
		}
		host := hostKey(part.MachineID)
		switch {
		case s.Created.Before(p.in.RotateAt):
			p.addEarlier(part.KeyUUID, host, s.Created)
		case s.Created.After(p.lastRestart) && !s.Incomplete:
			p.parts = append(p.parts, keyedPart{part.KeyUUID, s.ID, host, s.Created})
		}
	}
}

func (p *proof) addEarlier(key, host string, created time.Time) {
	if key == "" {
		return
	}
	p.earlier[key] = true
	member := p.members[host]
	if member == nil {
		return
	}
	member.earlier[key] = true
	if created.After(member.newest) && showsLastKey(created, member.PreviousRotateAt, time.Time{}) {
		member.PreviousKeyUUID, member.newest = key, created
	}
}

// find returns the first proof, or why there is none. Its error is that a member has
// its earlier key.
func (p *proof) find() (ProveRotationResult, error) {
	result := ProveRotationResult{Reason: fmt.Sprintf("no complete snapshot of replica set %s was begun after its last member restarted at %s", nameList([]string{p.in.ReplicaSet}), p.lastRestart.UTC().Format(time.RFC3339))}
	for _, part := range p.parts {
		found, err := p.judge(part)
		if err != nil {
			return ProveRotationResult{}, err
		}
		if found.Proven {
			return found, nil
		}
		result = found
	}
	result.Reason = ellipsis.Cut(result.Reason, maxReasonText)
	return result, nil
}

// judge says what one part of a snapshot shows.
func (p *proof) judge(part keyedPart) (ProveRotationResult, error) {
	result := ProveRotationResult{SnapshotID: part.snapshot, Host: part.host}
	member := p.members[part.host]
	if member != nil {
		result.Process, result.Host, result.PreviousKeyUUID = member.Process, member.Host, member.PreviousKeyUUID
	}
	from := cmp.Or(result.Host, "a member that it does not name")
	switch {
	case part.key == "":
		result.Reason = fmt.Sprintf("snapshot %s, taken from %s, names no key", part.snapshot, from)
		return result, nil
	case member != nil && member.earlier[part.key]:
		return result, permanent(ErrorKeyUnchanged, "GET %s: snapshot %s of %s, taken from process %s (%s) after it restarted at %s, names key %s, which was its key before the rotation; check the mongod log of this process and its KMIP settings, then rotate again",
			opsmanager.SnapshotsPath(p.in.ProjectID, p.in.ClusterID), part.snapshot, part.created.Format(time.RFC3339), nameList([]string{member.Process}), member.Host,
			member.RestartedAt.UTC().Format(time.RFC3339), part.key)
	case p.earlier[part.key]:
		result.Reason = fmt.Sprintf("snapshot %s, taken from %s, names key %s, which a snapshot from before the rotation names", part.snapshot, from, part.key)
		return result, nil
	}
	return p.judgeNewKey(result, part, from, member != nil && member.PreviousKeyUUID != ""), nil
}

// judgeNewKey says whether a key that no earlier snapshot names is shown to be the
// rotation's. ofKnownMember: it replaced another one of the same member.
func (p *proof) judgeNewKey(result ProveRotationResult, part keyedPart, from string, ofKnownMember bool) ProveRotationResult {
	result.KMIP = p.ask(part.key)
	made := isMadeAfter(result.KMIP, p.in.RotateAt)
	switch {
	case made && ofKnownMember:
		result.ProvenBy = ProvenByBoth
	case made:
		result.ProvenBy = ProvenByKMIP
	case ofKnownMember && p.in.Proof == ProofSnapshot:
		result.ProvenBy = ProvenBySnapshot
	case ofKnownMember:
		result.Reason = fmt.Sprintf("snapshot %s, taken from %s, names the new key %s, and %s", part.snapshot, from, part.key, describeEvidence(result.KMIP))
		return result
	default:
		result.Reason = fmt.Sprintf("snapshot %s, taken from %s, names key %s; no earlier snapshot shows the previous key of this member, and %s", part.snapshot, from, part.key, describeEvidence(result.KMIP))
		return result
	}
	result.Proven, result.NewKeyUUID = true, part.key
	return result
}

// isMadeAfter reports whether the KMIP server says that it made a key after a time.
func isMadeAfter(evidence *kmipevidence.Evidence, at time.Time) bool {
	return evidence != nil && evidence.Outcome == kmipevidence.OutcomeWitnessed && evidence.InitialDate != nil && evidence.InitialDate.After(at)
}

// describeEvidence is why evidence is no proof.
func describeEvidence(evidence *kmipevidence.Evidence) string {
	switch {
	case evidence == nil:
		return "no KMIP server is configured that could say when it was made"
	case evidence.Outcome != kmipevidence.OutcomeWitnessed:
		return fmt.Sprintf("the KMIP server does not say when it was made (%s)", evidence.Outcome)
	case evidence.InitialDate == nil:
		return "the KMIP server names no time at which it was made"
	default:
		return "the KMIP server made it at " + evidence.InitialDate.Format(time.RFC3339) + ", not after the rotation began"
	}
}
