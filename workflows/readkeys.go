package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
)

// keyReading is what the reading of a target's key proves about PUTs. It is a
// fact about one target: a reset may separate the readings of two.
type keyReading struct {
	// In is the run that read the key. It guarantees that no PUT was sent
	// before, and only in this run.
	In string `json:"in,omitempty"`
	// At is when the reading was scheduled.
	At time.Time `json:"at,omitzero"`
	// Refused: PUTs may have been sent since, but none took effect.
	Refused bool `json:"refused,omitempty"`
	// EarlierPut: a PUT may have been sent before the reading, by an earlier
	// rotation or by a run that this one is a copy of. Nothing is guaranteed.
	EarlierPut bool `json:"earlierPut,omitempty"`
}

// reading returns that of a target. One that was not read proves nothing.
func (r *clusterRotation) reading(t *TargetRecord) *keyReading {
	reading := r.readings[t.ClusterID]
	if reading == nil {
		reading = &keyReading{}
		r.readings[t.ClusterID] = reading
	}
	return reading
}

// carriedReadings is the same reading for a number of consecutive targets.
type carriedReadings struct {
	keyReading
	Targets int `json:"targets"`
}

// carriedReadings returns what the next run must know of the targets that may
// still be rotated: until the approval also those that were carried over, as their
// keys may change.
func (r *clusterRotation) carriedReadings() (carried []carriedReadings) {
	for i := range r.clusterTargets {
		t := &r.clusterTargets[i]
		var reading keyReading
		if t.Status == StatusPending || t.Status == StatusFailed || t.CarriedOver && r.phase == PhaseAwaitingApproval {
			reading = *r.reading(t)
		}
		if last := len(carried) - 1; last >= 0 && carried[last].keyReading == reading {
			carried[last].Targets++
			continue
		}
		carried = append(carried, carriedReadings{reading, 1})
	}
	return carried
}

// inheritReadings takes over what the previous run knew. What that run
// guaranteed, this one guarantees as the run that it was before any reset: its copy
// still does what the history says, but guarantees nothing.
func (r *clusterRotation) inheritReadings(ctx workflow.Context, carried []carriedReadings) {
	info := workflow.GetInfo(ctx)
	targets := r.clusterTargets
	for _, c := range carried {
		reading := c.keyReading
		if reading.In == info.ContinuedExecutionRunID {
			reading.In = info.OriginalRunID
		} else {
			reading.In = ""
		}
		n := min(max(c.Targets, 0), len(targets))
		for _, t := range targets[:n] {
			own := reading
			r.readings[t.ClusterID] = &own
		}
		targets = targets[n:]
	}
}

// readKey is a key and what its reading proves.
type readKey struct {
	activities.Key
	keyReading
}

// readKeys reads the key of every target, in the order of the records. One
// activity reads them all: the workflow cannot be reset to between two readings.
func (r *clusterRotation) readKeys(ctx workflow.Context) ([]readKey, error) {
	r.enterPhase(ctx, PhaseReading)
	targets := r.clusterTargets
	atATime := len(targets)
	if atATime > readBatchSize && !readsAllKeysAtOnce(ctx) {
		atATime = readBatchSize
	}
	var keys []readKey
	for first := 0; first < len(targets); first += atATime {
		some, err := r.readSome(ctx, targets[first:min(first+atATime, len(targets))], len(keys))
		if err != nil {
			return nil, err
		}
		keys = append(keys, some...)
	}
	return keys, nil
}

// readsAllKeysAtOnce is false in histories that were recorded when an activity
// read no more than readBatchSize keys.
func readsAllKeysAtOnce(ctx workflow.Context) bool {
	return workflow.GetVersion(ctx, "read-all-keys-at-once", workflow.DefaultVersion, 1) == 1
}

func (r *clusterRotation) readSome(ctx workflow.Context, targets []TargetRecord, readBefore int) ([]readKey, error) {
	summary := fmt.Sprintf("read the keys of %d targets, from %s", len(targets), targets[0].Name)
	batches := (len(targets) + readBatchSize - 1) / readBatchSize
	ctx = activityOptions(ctx, shorten(summary), totalOf(r.input.RetryTimeout)+time.Duration(batches-1)*requestAllowance)
	input := activities.ReadKeysInput{Scope: r.scope(), Concurrency: r.input.Concurrency, ReadBefore: readBefore}
	earlier := r.earlierRecords()
	for _, t := range targets {
		input.ClusterIDs = append(input.ClusterIDs, t.ClusterID)
		if record := earlier[lower(t.ClusterID)]; t.Status == StatusPending && mayHaveBeenRotated(record) {
			if input.Earlier == nil {
				input.Earlier = map[string]string{}
			}
			input.Earlier[t.ClusterID] = record.PreviousKeyUUID
		}
	}
	at := timestamp(ctx)
	var read activities.ReadKeysResult
	err := workflow.ExecuteActivity(ctx, activities.ReadKeysName, input).Get(ctx, &read)
	if err == nil && len(read.Keys) != len(targets) {
		err = failure(ErrorUnexpectedResponse, nil, "ReadKeys returned %d keys for %d targets", len(read.Keys), len(targets))
	}
	if err != nil {
		return nil, err
	}
	keys := make([]readKey, len(read.Keys))
	for i, key := range read.Keys {
		keys[i] = readKey{key, keyReading{In: read.ReadIn, At: at}}
	}
	return keys, nil
}

// recordKeys records each target's key, and carries over what an earlier
// rotation did. A target that an operator skipped during the reading stays
// skipped.
func (r *clusterRotation) recordKeys(ctx workflow.Context, keys []readKey) {
	earlier := r.earlierRecords()
	for i := range r.clusterTargets {
		t, key := &r.clusterTargets[i], keys[i]
		if t.CarriedOver && t.NewKeyUUID != key.KeyUUID && resetsChangedCarryOver(ctx) {
			*t = TargetRecord{Target: t.Target, Status: StatusPending}
		}
		r.readings[t.ClusterID] = &key.keyReading
		t.PreviousKeyUUID = key.KeyUUID
		if t.Status != StatusPending && !t.CarriedOver {
			continue
		}
		if record, found := earlier[lower(t.ClusterID)]; found {
			r.carryOver(ctx, t, record, key)
		}
	}
}

// earlierRecords are those of an earlier rotation, by cluster ID.
func (r *clusterRotation) earlierRecords() map[string]TargetRecord {
	earlier := map[string]TargetRecord{}
	for _, record := range r.input.Completed {
		earlier[lower(record.ClusterID)] = record
	}
	return earlier
}

// carryOver takes over what an earlier rotation did to a target: a verified key
// that the target still has, or a PUT that has taken effect since.
func (r *clusterRotation) carryOver(ctx workflow.Context, t *TargetRecord, done TargetRecord, key readKey) {
	switch {
	case done.Status == StatusVerified && done.NewKeyUUID == key.KeyUUID:
	case !mayHaveBeenRotated(done):
		return
	case done.PreviousKeyUUID == key.KeyUUID:
		r.reading(t).EarlierPut = true // it may still take effect
		t.Ambiguous = true             // also in a rotation that continues this one
		return
	case !verifiesEarlierPuts(ctx):
		return
	default:
		readAt := r.withinRotation(ctx, key.ReadAt)
		done.Status, done.NewKeyUUID, done.VerifiedAt, done.KMIP = StatusVerified, key.KeyUUID, &readAt, key.KMIP
		if done.RotatedAt == nil {
			done.RotatedAt = &readAt // when its effect was first read
		}
	}
	done.Target, done.CarriedOver, done.Error = t.Target, true, nil
	done.RotatedAt, done.VerifiedAt = inUTC(done.RotatedAt), inUTC(done.VerifiedAt)
	*t = done
}

// mayHaveBeenRotated reports whether a PUT was accepted, or had an
// unknown outcome, and was not verified.
func mayHaveBeenRotated(t TargetRecord) bool {
	return t.Status != StatusVerified && t.PreviousKeyUUID != "" &&
		(t.RotatedAt != nil || t.Ambiguous || t.Status == StatusRotating)
}

// verifiesEarlierPuts is false in histories that were recorded when a target was
// rotated again although the PUT of an earlier rotation had changed its key.
func verifiesEarlierPuts(ctx workflow.Context) bool {
	return workflow.GetVersion(ctx, "verify-earlier-puts-by-reading", workflow.DefaultVersion, 1) == 1
}

// resetsChangedCarryOver reports whether a target that was carried over, and has lost
// that key while approval was waited for, is to be rotated like any other. Before
// this version it stayed as it was, and no approval could let the rotation go on.
func resetsChangedCarryOver(ctx workflow.Context) bool {
	const change = "2026-11-25: a carried-over key that changes before the approval is rotated"
	return workflow.GetVersion(ctx, change, workflow.DefaultVersion, 1) == 1
}

// plannedKey is the key that the plan shows for a target.
func plannedKey(t *TargetRecord) string {
	if t.Status == StatusVerified {
		return t.NewKeyUUID
	}
	return t.PreviousKeyUUID
}

func (r *clusterRotation) changedSincePlan(again []readKey) (names []string) {
	for i := range r.clusterTargets {
		if t := &r.clusterTargets[i]; again[i].KeyUUID != plannedKey(t) {
			names = append(names, t.Name)
		}
	}
	return names
}

// readByAnotherRun reports whether the workflow was reset between the two readings
// of a target: the run that made the first one may have sent PUTs meanwhile.
func (r *clusterRotation) readByAnotherRun(t *TargetRecord, again readKey) bool {
	return r.reading(t).In != again.In
}

// keepsFirstReading reports whether changed keys may be the effect of another run's
// PUTs. The plan then stays as it is, and RotateKey finds out by reading. It is
// false in histories that were recorded when such keys were approved again.
func (r *clusterRotation) keepsFirstReading(ctx workflow.Context, again []readKey) bool {
	for i := range r.clusterTargets {
		if t := &r.clusterTargets[i]; again[i].KeyUUID != plannedKey(t) && r.readByAnotherRun(t, again[i]) {
			return workflow.GetVersion(ctx, "keep-keys-read-by-another-run", workflow.DefaultVersion, 1) == 1
		}
	}
	return false
}

// confirmPlan reads the keys again.
func (r *clusterRotation) confirmPlan(ctx workflow.Context) (changed string, err error) {
	again, err := r.readKeys(ctx)
	if err != nil {
		_, err = r.clusterGoneOr(ctx, err)
		return "", err
	}
	names := r.changedSincePlan(again)
	if len(names) == 0 || r.keepsFirstReading(ctx, again) {
		r.confirmKeys(again)
		return "", nil
	}
	r.recordKeys(ctx, again)
	return fmt.Sprintf("the keys of %s changed after the approval", someNames(names)), nil
}

// confirmKeys takes up a second reading that needs no other approval. Nothing
// is guaranteed about a target that another run read first.
func (r *clusterRotation) confirmKeys(again []readKey) {
	for i := range r.clusterTargets {
		t, key := &r.clusterTargets[i], again[i]
		reading := r.reading(t)
		changed := key.KeyUUID != plannedKey(t)
		if changed || r.readByAnotherRun(t, key) {
			reading.EarlierPut = true
		}
		reading.In, reading.At = key.In, key.At
		if changed && t.CarriedOver {
			*t = TargetRecord{Target: t.Target, Status: StatusPending, PreviousKeyUUID: t.NewKeyUUID}
		}
	}
}
