package campaign

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
	"keyturn/testsuite/environment"
	"keyturn/testsuite/simulator"
	"keyturn/workflows"
)

// secrets may stand in no message, record or progress.
var secrets = []string{simulator.DefaultPrivateKey, simulator.PlantedSecret}

// inspect looks for secrets in what anybody may read.
func (w *world) inspect(where string, shown any) {
	text, err := json.Marshal(shown)
	for _, secret := range secrets {
		if err != nil || strings.Contains(string(text), secret) {
			w.accuse("%s holds a secret (or is no JSON: %v)", where, err)
		}
	}
}

// findings are what is wrong with a rotation.
type findings []string

func (f *findings) add(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// check compares the end of a rotation, and its records, with the ledger.
func (r *rotation) check() findings {
	var f findings
	if errors.Is(r.err, errNeverEnded) {
		f.add("%v", r.err)
		return f
	}
	r.checkRequests(&f)
	r.checkApplied(&f)
	records := r.records()
	r.checkEnd(&f, records)
	if records != nil {
		r.checkRecords(&f, records)
	}
	r.checkTexts(&f, records)
	return f
}

// records are those of the result, or of the failure's details.
func (r *rotation) records() *workflows.RotateClusterResult {
	if r.err == nil {
		return r.result
	}
	records, _ := workflows.ResultOf(r.err)
	return records
}

func (r *rotation) checkTexts(f *findings, records *workflows.RotateClusterResult) {
	r.w.inspect("the records", records)
	if r.err != nil {
		r.w.inspect("the failure", r.err.Error())
	}
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	*f = append(*f, r.w.accusations...)
}

// checkRequests: a PUT goes to nothing but a target, and none before the key of
// every target was read.
func (r *rotation) checkRequests(f *findings) {
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
		case r.w.placeOf(request.ClusterID) == noTarget:
			f.add("request %d: a PUT on %s, which is no target", request.Seq, request.ClusterID)
		case len(read) < len(r.w.targets):
			f.add("request %d: a PUT when only %d of %d targets had been read", request.Seq, len(read), len(r.w.targets))
		case r.input.DryRun:
			f.add("request %d: a PUT in a dry run", request.Seq)
		}
	}
}

// checkApplied: at most one PUT is applied to a target in one rotation. That
// holds for all its runs together, resets included, and also where an operator
// retries. (A retry after KeyUnchanged sends another PUT; but the one before is
// then known to have come to nothing, as verifyTimeout is longer than anything
// that a drawn PUT takes to show.) It is promised only as long as Ops Manager
// shows a PUT's effect within settleTime: see brokenWord.
func (r *rotation) checkApplied(f *findings) {
	for i, id := range r.w.targets {
		applied := r.appliedTo(id)
		if len(applied) < 2 {
			continue
		}
		if why := r.brokenWord(id); why != "" {
			r.w.tally.add("targets without the promise of one PUT, as Ops Manager was slower than settleTime", 1)
			continue
		}
		r.w.tally.add("PUTs applied twice", 1)
		f.add("target %d (%s): %d PUTs were applied, by requests %v", i, id, len(applied), requestsOf(applied))
	}
}

func requestsOf(applied []simulator.Rotation) (seqs []int) {
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

// brokenWord tells, from the ledger's times, where Ops Manager did not do what
// the contract asks of it: the effect of each PUT shows within settleTime of
// its arrival, and then stays. What is drawn does so, but for a machine that is
// too slow for these short times, and for stale answers, whose time is not
// drawn.
func (r *rotation) brokenWord(id string) string {
	for _, a := range r.appliedTo(id) {
		put := r.request(a.Request)
		shown := a.AppliedAt.Add(r.showAfter(put))
		if took := shown.Sub(put.Start); took > r.w.plan.pace.settle {
			return fmt.Sprintf("the PUT %d took %s to show", put.Seq, took)
		}
		for _, request := range r.requests {
			stale := kindOfFault(request.Fault) == simulator.KeyStale("").Name && request.ClusterID == id
			if stale && request.End.Sub(put.Start) > r.w.plan.pace.settle {
				return fmt.Sprintf("the stale answer %d came %s after the PUT", request.Seq, request.End.Sub(put.Start))
			}
		}
	}
	return ""
}

func (r *rotation) showAfter(put simulator.Request) time.Duration {
	return max(r.w.showAfter[put.Fault], r.w.plan.options.ShowAfter)
}

func (r *rotation) request(seq int) simulator.Request {
	for _, request := range r.requests {
		if request.Seq == seq {
			return request
		}
	}
	return simulator.Request{}
}

// errorTypes are the contract's.
var errorTypes = []string{
	activities.ErrorInvalidInput, activities.ErrorUnknownConnection, activities.ErrorUnauthorized, activities.ErrorForbidden,
	activities.ErrorNotFound, activities.ErrorUnexpectedTopology, activities.ErrorEncryptionOff, activities.ErrorClusterBusy,
	activities.ErrorKeyUnchanged, activities.ErrorRejected, activities.ErrorApprovalTimedOut, activities.ErrorAborted,
	activities.ErrorPartialFailure, activities.ErrorUnexpectedResponse, activities.ErrorRateLimited, activities.ErrorOpsManagerUnavailable,
}

// checkEnd: success only where every target is verified or skipped, and a
// failure of one of the contract's types with the records.
func (r *rotation) checkEnd(f *findings, records *workflows.RotateClusterResult) {
	if r.err != nil {
		r.checkFailure(f, records)
		return
	}
	r.w.tally.add("outcome: "+records.Outcome, 1)
	if want := wantedOutcome(r.input, records.Targets); records.Outcome != want {
		f.add("the outcome is %q, and must be %q", records.Outcome, want)
	}
}

func wantedOutcome(input workflows.RotateClusterInput, records []workflows.TargetRecord) string {
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

func count(records []workflows.TargetRecord, status string) (n int) {
	for _, t := range records {
		if t.Status == status {
			n++
		}
	}
	return n
}

func (r *rotation) checkFailure(f *findings, records *workflows.RotateClusterResult) {
	appErr, isApplicationError := errors.Unwrap(r.err).(*temporal.ApplicationError)
	if !isApplicationError { // right below what the environment wraps around a workflow's error
		f.add("the failure is no application error: %v", r.err)
		return
	}
	r.w.tally.add("outcome: "+appErr.Type(), 1)
	if !slices.Contains(errorTypes, appErr.Type()) {
		f.add("the failure's type %q is none of the contract's: %v", appErr.Type(), r.err)
	}
	if !appErr.NonRetryable() && !r.w.tired {
		f.add("the failure is retryable: %v", r.err)
	}
	if r.plan.calm && !r.w.tired {
		f.add("nothing was drawn that may fail, but: %v", r.err)
	}
	switch appErr.Type() {
	case activities.ErrorPartialFailure, activities.ErrorAborted:
		if records == nil || records.Outcome != workflows.OutcomePartial {
			f.add("%s without the records of a partial rotation: %v", appErr.Type(), r.err)
		}
	default:
		// All others say that nothing was rotated.
		if puts := r.puts(""); puts > 0 {
			f.add("%s, but %d PUTs were sent: %v", appErr.Type(), puts, r.err)
		}
	}
}

// puts counts the PUTs that were sent to a target, or to all.
func (r *rotation) puts(id string) (n int) {
	for _, request := range r.requests {
		if request.Method == http.MethodPut && request.Authenticated && (id == "" || id == request.ClusterID) {
			n++
		}
	}
	return n
}

func (r *rotation) checkRecords(f *findings, records *workflows.RotateClusterResult) {
	if records.ClusterID != r.w.clusterID || records.ProjectID != r.input.ProjectID || records.FinishedAt == nil {
		f.add("the records do not say which rotation ended when: %+v", *records)
	}
	if len(records.Targets) == 0 && r.puts("") == 0 {
		return // it ended before it had a list
	}
	var listed []string
	for _, t := range records.Targets {
		listed = append(listed, t.ClusterID)
	}
	// Shards in their order, the config server last.
	if !slices.Equal(listed, r.w.targets) {
		f.add("the records are of %v, the targets are %v", listed, r.w.targets)
		return
	}
	for _, t := range records.Targets {
		r.checkRecord(f, t)
	}
	if r.mustTryAll() && count(records.Targets, workflows.StatusPending) > 0 {
		f.add("targets were left out: %v", r.err)
	}
}

// mustTryAll tells that nobody and nothing was to end the rotation before every
// target had its turn.
func (r *rotation) mustTryAll() bool {
	var appErr *temporal.ApplicationError
	if errors.As(r.err, &appErr) && appErr.Type() != activities.ErrorPartialFailure {
		return false
	}
	return !r.input.DryRun && (r.err == nil || r.input.OnFailure == workflows.OnFailureContinue)
}

func (r *rotation) checkRecord(f *findings, t workflows.TargetRecord) {
	add := func(format string, args ...any) { f.add(t.Name+" ("+t.Status+"): "+format, args...) }
	for _, key := range []string{t.PreviousKeyUUID, t.NewKeyUUID} {
		if key != "" && !r.w.wasIssued(t.ClusterID, key) {
			add("key %q was never its", key)
		}
	}
	if (t.Error != nil) != (t.Status == workflows.StatusFailed || t.Status == workflows.StatusSkipped) {
		add("error %+v", t.Error)
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
			add("its error is %+v", *t.Error)
		}
	case workflows.StatusPlanned:
		if !r.input.DryRun || t.PreviousKeyUUID != r.w.om.Key(t.ClusterID) {
			add("it is not as planned: %+v", t)
		}
	case workflows.StatusPending, workflows.StatusSkipped:
	default:
		add("that is no status to end with")
	}
	// Whatever became of a PUT, the record shows that there was one.
	if t.Status != workflows.StatusVerified && r.puts(t.ClusterID) > 0 && !leavesTrace(t) && !r.wasForgotten(t) {
		add("a PUT was sent to it, of which the record has no trace")
	}
}

func leavesTrace(t workflows.TargetRecord) bool {
	return t.Attempts > 0 || t.Ambiguous || t.RotatedAt != nil
}

// wasForgotten tells that a reset of the workflow took the part of the history
// in which the target was worked on, and that the copy then ended before the
// target had its turn again: no record can know of that.
func (r *rotation) wasForgotten(t workflows.TargetRecord) bool {
	last := r.runs[len(r.runs)-1]
	return !r.resetAt.IsZero() && !last.attempted[job{activities.RotateKeyName, r.w.placeOf(t.ClusterID)}]
}

// checkVerified: what is recorded is what the ledger has. (Two PUTs are found by
// checkApplied; what the record then shows is no other finding.)
func (r *rotation) checkVerified(add func(string, ...any), t workflows.TargetRecord) {
	applied := r.appliedTo(t.ClusterID)
	if len(applied) > 1 {
		return
	}
	ledger := simulator.Ledger{Requests: r.requests, Rotations: r.applied}
	if err := environment.CheckRecords(ledger, []workflows.TargetRecord{t}); err != nil {
		add("%v", err)
		return
	}
	// A copy that a reset made may have the time of an earlier PUT, which was
	// accepted and came to nothing.
	at := applied[0].AppliedAt.Truncate(time.Millisecond)
	if t.VerifiedAt.Before(at) || t.VerifiedAt.Before(*t.RotatedAt) || t.RotatedAt.Before(at) && r.resetAt.IsZero() {
		add("the PUT was applied at %s, and is recorded as of %s, verified at %s", at, t.RotatedAt, t.VerifiedAt)
	}
	if now := r.w.om.Key(t.ClusterID); now != t.NewKeyUUID {
		add("its key is %s, and was recorded as %s", now, t.NewKeyUUID)
	}
}

func (r *rotation) checkCarriedOver(add func(string, ...any), t workflows.TargetRecord) {
	if t.Status != workflows.StatusVerified || r.puts(t.ClusterID) > 0 {
		add("it was carried over, but %d PUTs were sent to it", r.puts(t.ClusterID))
	}
	earlier := slices.IndexFunc(r.input.Completed, func(c workflows.TargetRecord) bool { return c.ClusterID == t.ClusterID })
	if earlier < 0 || r.input.Completed[earlier].NewKeyUUID != t.NewKeyUUID {
		add("it was carried over from no record")
	}
}

// wasIssued tells whether a target ever had a key.
func (w *world) wasIssued(clusterID, key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.om.Ledger().Applied(clusterID) {
		w.issued[clusterID][a.NewKey] = true
	}
	return w.issued[clusterID][key]
}
