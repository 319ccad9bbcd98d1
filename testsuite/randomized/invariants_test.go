package randomized

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"

	"keyturn/activities"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/invariants"
	"keyturn/workflows"
)

// secrets must not occur in any message, record or progress.
var secrets = []string{simulator.DefaultPrivateKey, simulator.PlantedSecret}

// checkNoSecrets looks for secrets in text that users can read.
func (e *env) checkNoSecrets(where string, shown any) {
	text, err := json.Marshal(shown)
	for _, secret := range secrets {
		if err != nil || strings.Contains(string(text), secret) {
			e.addViolation("%s contains a secret (or cannot be marshaled: %v)", where, err)
		}
	}
}

// violations are the ways in which a rotation breaks its contract.
type violations []string

func (f *violations) add(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// check checks the outcome of a rotation and its records against the ledger.
func (r *rotation) check() violations {
	var f violations
	if errors.Is(r.err, errNotCompleted) {
		f.add("%v", r.err)
		return f
	}
	r.checkRequests(&f)
	r.checkApplied(&f)
	records := r.records()
	r.checkOutcome(&f, records)
	if records != nil {
		r.checkRecords(&f, records)
	}
	r.checkSecrets(&f, records)
	return f
}

// records returns the records of the result or of the failure's details.
func (r *rotation) records() *workflows.RotateClusterResult {
	if r.err == nil {
		return r.result
	}
	records, _ := workflows.RotateClusterResultOf(r.err)
	return records
}

func (r *rotation) checkSecrets(f *violations, records *workflows.RotateClusterResult) {
	r.env.checkNoSecrets("the records", records)
	if r.err != nil {
		r.env.checkNoSecrets("the failure", r.err.Error())
	}
	r.env.mu.Lock()
	defer r.env.mu.Unlock()
	*f = append(*f, r.env.violations...)
}

// checkRequests: PUTs go only to targets, and only after the key of every
// target has been read.
func (r *rotation) checkRequests(f *violations) {
	read := map[string]bool{}
	for _, request := range r.requests {
		if request.Kind != simulator.KindKey {
			continue
		}
		if request.Method == http.MethodGet {
			read[request.ClusterID] = read[request.ClusterID] || request.Status == http.StatusOK
			continue
		}
		switch {
		case request.OnParent:
			f.add("request %d: a PUT on a sharded cluster as a whole", request.Seq)
		case r.env.targetIndex(request.ClusterID) == noTarget:
			f.add("request %d: a PUT on %s, which is not a target", request.Seq, request.ClusterID)
		case len(read) < len(r.env.targets):
			f.add("request %d: a PUT after reading only %d of %d targets", request.Seq, len(read), len(r.env.targets))
		case r.input.DryRun:
			f.add("request %d: a PUT in a dry run", request.Seq)
		}
	}
}

// checkApplied: at most one PUT is applied to a target in one rotation. This
// includes all runs, resets and operators' retries. (A retry after KeyUnchanged
// sends another PUT, but then the previous one is known to have had no effect:
// verifyTimeout is longer than the time after which any generated PUT becomes
// visible.) The guarantee holds only if Ops Manager shows the effect of a PUT
// within settleTime: see exceededSettleTime.
func (r *rotation) checkApplied(f *violations) {
	for i, id := range r.env.targets {
		applied := r.appliedTo(id)
		if len(applied) < 2 {
			continue
		}
		if why := r.exceededSettleTime(id); why != "" {
			r.env.counters.add("targets without the guarantee of one PUT because Ops Manager was slower than settleTime", 1)
			continue
		}
		r.env.counters.add("PUTs applied twice", 1)
		f.add("target %d (%s): %d PUTs were applied, by requests %v", i, id, len(applied), requestNumbers(applied))
	}
}

func requestNumbers(applied []simulator.Rotation) (seqs []int) {
	for _, a := range applied {
		seqs = append(seqs, a.Request)
	}
	return seqs
}

func (r *rotation) appliedTo(id string) (applied []simulator.Rotation) {
	for _, a := range r.applied {
		if a.ClusterID == id {
			applied = append(applied, a)
		}
	}
	return applied
}

// exceededSettleTime returns, from the times in the ledger, how Ops Manager
// broke its part of the contract: the effect of each PUT is visible within
// settleTime of its arrival and stays visible. Generated faults comply, except
// on a machine that is too slow for these short times, and except for stale
// reads, whose time is not generated.
func (r *rotation) exceededSettleTime(id string) string {
	for _, a := range r.appliedTo(id) {
		put := r.request(a.Request)
		shown := a.AppliedAt.Add(r.showAfter(put))
		taken := put.Start
		if thawed := r.env.thawed.Load(); thawed != nil && faultKind(put.Fault) == simulator.PutFrozen("", 0).Name {
			taken = *thawed
		}
		if took := shown.Sub(taken); took > r.env.plan.timing.settle {
			return fmt.Sprintf("PUT %d was visible after %s", put.Seq, took)
		}
		for _, request := range r.requests {
			stale := faultKind(request.Fault) == simulator.KeyStale("").Name && request.ClusterID == id
			if stale && request.End.Sub(put.Start) > r.env.plan.timing.settle {
				return fmt.Sprintf("stale response %d came %s after the PUT", request.Seq, request.End.Sub(put.Start))
			}
		}
	}
	return ""
}

func (r *rotation) showAfter(put simulator.Request) time.Duration {
	return max(r.env.showAfter[put.Fault], r.env.plan.options.ShowAfter)
}

func (r *rotation) request(seq int) simulator.Request {
	for _, request := range r.requests {
		if request.Seq == seq {
			return request
		}
	}
	return simulator.Request{}
}

// errorTypes are the error types of the contract.
var errorTypes = []workflows.ErrorType{
	workflows.ErrorInvalidInput, workflows.ErrorUnknownConnection, workflows.ErrorUnauthorized, workflows.ErrorForbidden,
	workflows.ErrorNotFound, workflows.ErrorUnexpectedTopology, workflows.ErrorEncryptionOff, workflows.ErrorNotServed, workflows.ErrorClusterBusy,
	workflows.ErrorKeyUnchanged, workflows.ErrorRejected, workflows.ErrorApprovalTimedOut, workflows.ErrorAborted,
	workflows.ErrorPartialFailure, workflows.ErrorUnexpectedResponse, workflows.ErrorRateLimited, workflows.ErrorOpsManagerUnavailable,
}

// checkOutcome: a rotation succeeds only if every target is verified or
// skipped. Otherwise it fails with an error type of the contract and with its
// records.
func (r *rotation) checkOutcome(f *violations, records *workflows.RotateClusterResult) {
	if r.err != nil {
		r.checkFailure(f, records)
		return
	}
	r.env.counters.add("outcome: "+string(records.Outcome), 1)
	if want := wantedOutcome(r.input, records.Targets); records.Outcome != want {
		f.add("the outcome is %q, expected %q", records.Outcome, want)
	}
}

func wantedOutcome(input workflows.RotateClusterInput, records []workflows.TargetRecord) workflows.Outcome {
	verified, skipped := count(records, workflows.StatusVerified), count(records, workflows.StatusSkipped)
	switch {
	case input.DryRun:
		return workflows.OutcomePlanned
	case verified == len(records):
		return workflows.OutcomeRotated
	case verified+skipped == len(records):
		return workflows.OutcomeRotatedWithSkips
	default:
		return workflows.OutcomePartial
	}
}

func count(records []workflows.TargetRecord, status workflows.Status) (n int) {
	for _, t := range records {
		if t.Status == status {
			n++
		}
	}
	return n
}

func (r *rotation) checkFailure(f *violations, records *workflows.RotateClusterResult) {
	appErr, isApplicationError := errors.Unwrap(r.err).(*temporal.ApplicationError)
	if !isApplicationError { // directly below the environment's wrapper of a workflow error
		f.add("the failure is not an application error: %v", r.err)
		return
	}
	r.env.counters.add("outcome: "+appErr.Type(), 1)
	if !slices.Contains(errorTypes, workflows.ErrorType(appErr.Type())) {
		f.add("the error type %q is not part of the contract: %v", appErr.Type(), r.err)
	}
	if !appErr.NonRetryable() && !r.env.attemptLimitReached {
		f.add("the failure is retryable: %v", r.err)
	}
	if r.plan.faultFree && !r.env.attemptLimitReached {
		f.add("no fault was generated, but: %v", r.err)
	}
	switch workflows.ErrorType(appErr.Type()) {
	case workflows.ErrorPartialFailure, workflows.ErrorAborted:
		switch {
		case records == nil:
			f.add("%s without records: %v", appErr.Type(), r.err)
		case records.Outcome == workflows.OutcomeNothingRotated && r.puts("") > 0:
			f.add("%s and outcome nothingRotated, but PUTs were sent: %v", appErr.Type(), r.err)
		case records.Outcome != workflows.OutcomePartial && records.Outcome != workflows.OutcomeNothingRotated:
			f.add("%s with the outcome %s: %v", appErr.Type(), records.Outcome, r.err)
		}
	default:
		// All other types mean that this run rotated nothing; the run before a
		// reset may have.
		if puts := r.puts(""); puts > 0 && r.resetAt.IsZero() {
			f.add("%s, but %d PUTs were sent: %v", appErr.Type(), puts, r.err)
		}
	}
}

// puts counts the PUTs that were sent to a target, or to all targets for an
// empty ID.
func (r *rotation) puts(id string) (n int) {
	for _, request := range r.requests {
		if request.Method == http.MethodPut && request.Authenticated && (id == "" || id == request.ClusterID) {
			n++
		}
	}
	return n
}

func (r *rotation) checkRecords(f *violations, records *workflows.RotateClusterResult) {
	if records.ClusterID != r.env.clusterID || records.ProjectID != r.input.ProjectID || records.FinishedAt == nil {
		f.add("the records lack the IDs or the end of the rotation: %+v", *records)
	}
	if len(records.Targets) == 0 && r.puts("") == 0 {
		return // it ended before the targets were listed
	}
	var listed []string
	for _, t := range records.Targets {
		listed = append(listed, t.ClusterID)
	}
	// Shards in order, the config server last.
	if !slices.Equal(listed, r.env.targets) {
		f.add("the records have targets %v, expected %v", listed, r.env.targets)
		return
	}
	for _, t := range records.Targets {
		r.checkRecord(f, t)
	}
	if r.mustTryAll() && count(records.Targets, workflows.StatusPending) > 0 {
		f.add("targets were not processed: %v", r.err)
	}
}

// mustTryAll reports whether nothing ended the rotation before it had processed
// every target.
func (r *rotation) mustTryAll() bool {
	var appErr *temporal.ApplicationError
	if errors.As(r.err, &appErr) && workflows.ErrorType(appErr.Type()) != workflows.ErrorPartialFailure {
		return false
	}
	return !r.input.DryRun && (r.err == nil || r.input.OnFailure == workflows.OnFailureContinue)
}

func (r *rotation) checkRecord(f *violations, t workflows.TargetRecord) {
	add := func(format string, args ...any) { f.add(t.Name+" ("+string(t.Status)+"): "+format, args...) }
	for _, key := range []string{t.PreviousKeyUUID, t.NewKeyUUID, t.ReplacedOutside} {
		if key != "" && !r.env.wasIssued(t.ClusterID, key) {
			add("key %q was never a key of this target", key)
		}
	}
	if (t.Error != nil) != (t.Status == workflows.StatusFailed || t.Status == workflows.StatusSkipped) {
		add("unexpected error %+v", t.Error)
	}
	if t.CarriedOver {
		r.checkCarriedOver(add, t)
		return
	}
	switch t.Status {
	case workflows.StatusVerified:
		r.checkVerified(add, t)
	case workflows.StatusFailed:
		if !slices.Contains(errorTypes, t.Error.Type) || t.Error.Message == "" {
			add("invalid error %+v", *t.Error)
		}
	case workflows.StatusPlanned:
		if !r.input.DryRun || t.PreviousKeyUUID != r.env.om.Key(t.ClusterID) {
			add("wrong plan: %+v", t)
		}
	case workflows.StatusPending, workflows.StatusSkipped:
	default:
		add("invalid final status")
	}
	// The record shows every PUT, whatever its outcome.
	if t.Status != workflows.StatusVerified && r.puts(t.ClusterID) > 0 && !leavesTrace(t) && !r.wasLostInReset(t) {
		add("a PUT was sent that the record does not show")
	}
}

func leavesTrace(t workflows.TargetRecord) bool {
	return t.Attempts > 0 || t.Ambiguous || t.RotatedAt != nil
}

// wasLostInReset reports whether a workflow reset dropped the part of the
// history in which the target was processed and the new run ended before it
// processed the target again. No record can show that.
func (r *rotation) wasLostInReset(t workflows.TargetRecord) bool {
	last := r.runs[len(r.runs)-1]
	return !r.resetAt.IsZero() && !last.attempted[job{activities.RotateKeyName, r.env.targetIndex(t.ClusterID)}]
}

// maxClockLag is how far a record's times may be behind the simulator's: they go
// by Temporal's time of the attempt's start, which is before the worker has it.
const maxClockLag = 20 * time.Millisecond

// checkVerified: the record has what the ledger has. (checkApplied reports two
// PUTs; the record is then not checked again.)
func (r *rotation) checkVerified(add func(string, ...any), t workflows.TargetRecord) {
	applied := r.appliedTo(t.ClusterID)
	if len(applied) > 1 {
		return
	}
	// A copy that a reset made cannot distinguish its original's PUT from someone
	// else's rotation before the approval: it sends none.
	if len(applied) == 0 && !r.resetAt.IsZero() && t.Ambiguous && strings.HasPrefix(t.NewKeyUUID, "external-") {
		r.env.counters.add("external rotations that a reset hides", 1)
		return
	}
	ledger := simulator.Ledger{Requests: r.requests, Rotations: r.applied}
	if err := invariants.CheckRecords(ledger, []workflows.TargetRecord{t}); err != nil {
		add("%v", err)
		return
	}
	// A run that a reset created may have the time of an earlier PUT that was
	// accepted without effect.
	at := applied[0].AppliedAt.Truncate(time.Millisecond).Add(-maxClockLag)
	if t.VerifiedAt.Before(at) || t.VerifiedAt.Before(*t.RotatedAt) || t.RotatedAt.Before(at) && r.resetAt.IsZero() {
		add("the PUT was applied at %s, recorded at %s and verified at %s", at, t.RotatedAt, t.VerifiedAt)
	}
	if now := r.env.om.Key(t.ClusterID); now != t.NewKeyUUID {
		add("its current key is %s, the record has %s", now, t.NewKeyUUID)
	}
}

func (r *rotation) checkCarriedOver(add func(string, ...any), t workflows.TargetRecord) {
	if t.Status != workflows.StatusVerified || r.puts(t.ClusterID) > 0 {
		add("it was carried over, but %d PUTs were sent", r.puts(t.ClusterID))
	}
	i := slices.IndexFunc(r.input.Completed, func(c workflows.TargetRecord) bool { return c.ClusterID == t.ClusterID })
	if i < 0 {
		add("it was carried over without an earlier record")
		return
	}
	earlier := r.input.Completed[i]
	if earlier.Status == workflows.StatusVerified && earlier.NewKeyUUID == t.NewKeyUUID {
		return
	}
	// The earlier rotation's PUT was read now.
	hadPut := earlier.RotatedAt != nil || earlier.Ambiguous
	if earlier.Status == workflows.StatusVerified || !hadPut || earlier.PreviousKeyUUID != t.PreviousKeyUUID || t.NewKeyUUID != r.env.om.Key(t.ClusterID) {
		add("it was carried over from the record %+v", earlier)
	}
}

// wasIssued reports whether a target has ever had this key.
func (e *env) wasIssued(clusterID, key string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range e.om.Ledger().Applied(clusterID) {
		e.issued[clusterID][a.NewKey] = true
	}
	return e.issued[clusterID][key]
}
