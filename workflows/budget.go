package workflows

import (
	"encoding/json"
	"slices"
	"time"
	"unicode/utf8"

	"keyturn/internal/ellipsis"
)

// Temporal takes 2 MiB in one result, failure, query answer or start of a run,
// and 4 MiB in the completion of one workflow task, which may hold the answers
// of ten updates.
const (
	// maxPayload limits a result, the details of a failure, a query's answer and
	// a carried state, in bytes of JSON.
	maxPayload = 1_900_000
	// maxFailure limits the details of a failure where they can be made to fit:
	// through Nexus, they travel in Base64, and a caller waits for ever for those
	// that are larger then than 2 MiB.
	maxFailure = 1_450_000
	// maxUpdateAnswer limits the answer of an update, in bytes of JSON.
	maxUpdateAnswer = 150_000
	// maxMessage limits the message of a failure, in characters.
	maxMessage = 5_000
)

// textLimits are the lengths, in characters, to which texts are shortened until
// they fit; the first one always applies.
var textLimits = []int{maxText, 500, 200, 80, 20, 0}

// jsonBytes is the number of bytes of a value's JSON, as the data converter
// writes it.
//
//workflowcheck:ignore
func jsonBytes(value any) int {
	data, err := json.Marshal(value)
	if err != nil {
		return 0 // the data converter reports it
	}
	return len(data)
}

// characterBytes is the number of bytes of a character in a JSON string.
func characterBytes(r rune, size int) int {
	switch {
	case r == '"' || r == '\\' || r == '\n' || r == '\r' || r == '\t':
		return 2
	case r < ' ' || r == '<' || r == '>' || r == '&' || r == '\u2028' || r == '\u2029':
		return 6
	case r == '\b' || r == '\f':
		return 6
	case r == utf8.RuneError && size == 1:
		return 6
	default:
		return size
	}
}

// textBytes is the number of bytes, without the quotes, of the JSON of a text
// that is cut after limit characters. It stops counting above most.
func textBytes(text string, limit, most int) (bytes int) {
	for characters := 0; len(text) > 0 && characters < limit && bytes <= most; characters++ {
		r, size := utf8.DecodeRuneInString(text)
		bytes += characterBytes(r, size)
		text = text[size:]
	}
	return bytes
}

// shortenTexts shortens texts, all of them to the same length, until they take
// at most room bytes of JSON, and reports whether they do.
func shortenTexts(texts []*string, room int) bool {
	for _, limit := range textLimits {
		total := 0
		for _, text := range texts {
			if total += textBytes(*text, limit, room) + len(ellipsis.Character); total > room {
				break
			}
		}
		if total > room && limit > 0 {
			continue
		}
		for _, text := range texts {
			*text = ellipsis.Cut(*text, limit)
		}
		return total <= room
	}
	return false
}

// cloned returns a copy of an error that can be shortened.
func (e *TargetError) cloned() *TargetError {
	if e == nil {
		return nil
	}
	clone := *e
	return &clone
}

// cloneTexts returns the texts of evidence and of errors, which become copies.
func cloneTexts(evidence **KeyEvidence, failures ...**TargetError) (texts []*string) {
	if *evidence != nil {
		clone := **evidence
		*evidence = &clone
		texts = append(texts, &clone.Name)
	}
	for _, failure := range failures {
		if *failure = (*failure).cloned(); *failure != nil {
			texts = append(texts, &(*failure).Message)
		}
	}
	return texts
}

// textsOfRecords are the texts in records, which become copies.
func textsOfRecords(records []TargetRecord) (texts []*string) {
	for i := range records {
		t := &records[i]
		texts = append(texts, cloneTexts(&t.KMIP, &t.Error, &t.FirstError)...)
	}
	return texts
}

// textsOfActions are the texts in actions.
func textsOfActions(actions []Action) (texts []*string) {
	for i := range actions {
		texts = append(texts, &actions[i].Reason)
	}
	return texts
}

// budget is a copy of a rotation's records that is to fit into a payload.
type budget struct {
	// texts are those of the records, which may be shortened.
	texts    []*string
	approval **Approval
	actions  actionLog
	// bytes is the number of bytes of the JSON, or a few more, without all texts.
	bytes func() int
	// reductions leave out more and more of what is not required.
	reductions []func()
}

// fit makes the records fit into limit bytes of JSON. Texts are shortened first,
// then the actions become fewer and name no targets, then the reductions are made.
// No record loses its IDs, status, times or error type.
func (b budget) fit(limit int) {
	recorded := b.texts
	if *b.approval != nil {
		approval := **b.approval
		*b.approval = &approval
		recorded = append(recorded, &approval.Comment)
	}
	fits := func() bool {
		texts := append(slices.Clone(recorded), textsOfActions(*b.actions.actions)...)
		return shortenTexts(texts, limit-b.bytes())
	}
	for _, actions := range []int{maxActions, maxActions / 4, maxActions / 20} {
		b.actions.keepNewest(actions)
		if fits() {
			return
		}
	}
	if b.actions.countTargets(); fits() {
		return
	}
	for _, reduce := range b.reductions {
		if reduce(); fits() {
			return
		}
	}
}

// fit makes a copy of a cluster's records fit into limit bytes of JSON. Records
// leave out their empty fields, their first errors, and most of their KMIP evidence
// where nothing else helps.
func (r *RotateClusterResult) fit(limit int) {
	each := func(reduce func(*TargetRecord)) func() {
		return func() {
			for i := range r.Targets {
				reduce(&r.Targets[i])
			}
		}
	}
	budget{
		texts: textsOfRecords(r.Targets), approval: &r.Approval, actions: r.actionLog(), bytes: r.bytesWithoutTexts,
		reductions: []func(){
			each(func(t *TargetRecord) { t.compact = true }),
			each(func(t *TargetRecord) { t.reduceEvidence(mainEvidence) }),
			each(func(t *TargetRecord) { t.FirstError = nil }),
			each(func(t *TargetRecord) { t.reduceEvidence(leastEvidence) }),
			each(func(t *TargetRecord) { t.KMIP = nil }),
		},
	}.fit(limit)
}

func (r *RotateClusterResult) copied() rotationResult {
	result := *r
	result.Targets, result.Actions = slices.Clone(r.Targets), slices.Clone(r.Actions)
	return &result
}

// fittedForFailure returns the records as the details of a failure. Those of
// thousands of targets may need more than maxFailure, whatever is left out: they keep
// all that maxPayload has room for.
func fittedForFailure(records rotationResult) rotationResult {
	fitted := records.copied()
	fitted.fit(maxFailure)
	if jsonBytes(fitted) > maxFailure {
		return records
	}
	return fitted
}

// mainEvidence and leastEvidence are what records keep of evidence where they are
// too large.
func mainEvidence(e KeyEvidence) KeyEvidence {
	return KeyEvidence{Outcome: e.Outcome, State: e.State, InitialDate: e.InitialDate}
}

func leastEvidence(e KeyEvidence) KeyEvidence {
	return KeyEvidence{Outcome: e.Outcome}
}

// reduceEvidence changes the evidence of a copy of a record, if there is any.
func (t *TargetRecord) reduceEvidence(reduced func(KeyEvidence) KeyEvidence) {
	if t.KMIP != nil {
		*t.KMIP = reduced(*t.KMIP)
	}
}

// bytesWithoutTexts is the number of bytes of the result's JSON, or a few more,
// without the texts that fit shortens. It does not encode the records: that would
// take too long for a workflow task.
func (r *RotateClusterResult) bytesWithoutTexts() int {
	rest := *r
	rest.Targets, rest.Actions, rest.Approval = nil, nil, r.Approval.withoutComment()
	bytes := jsonBytes(rest) + actionBytes(r.Actions)
	for i := range r.Targets {
		bytes += r.Targets[i].bytesWithoutTexts()
	}
	return bytes
}

// withoutComment is a copy without the text that may be shortened.
func (a *Approval) withoutComment() *Approval {
	if a == nil {
		return nil
	}
	return &Approval{By: a.By, At: a.At}
}

// actionBytes is the number of bytes of actions' JSON, or a few more, without their
// reasons.
func actionBytes(actions []Action) (bytes int) {
	for _, action := range actions {
		action.Reason = "x" // an empty one is left out
		bytes += jsonBytes(action)
	}
	return bytes
}

// timesBytes is the number of bytes of the JSON of a record's times.
func timesBytes(times ...*time.Time) (bytes int) {
	for _, at := range times {
		if at != nil {
			bytes += timeBytes
		} else {
			bytes += len("null")
		}
	}
	return bytes
}

// errorBytes is the number of bytes of the JSON of a record's errors, or a few more,
// without their messages.
func errorBytes(failures ...*TargetError) (bytes int) {
	for _, failed := range failures {
		if failed != nil {
			bytes += len(`"firstError":{"type":"","message":""},`) + len(failed.Type)
		}
	}
	return bytes
}

const (
	timeBytes = len(`"2026-11-25T19:39:08.123Z"`)
	// emptyRecordBytes has what a compact record leaves out in its second part.
	emptyRecordBytes = len(`{"clusterId":"","name":"","role":"","status":"","previousKeyUUID":"","newKeyUUID":"","rotatedAt":,"verifiedAt":,"attempts":9999,`)
	emptyFieldsBytes = len(`"ambiguous":false,"carriedOver":false,"error":null`)
)

func (t *TargetRecord) bytesWithoutTexts() int {
	bytes := emptyRecordBytes
	for _, text := range []string{t.ClusterID, t.Name, string(t.Role), string(t.Status), t.PreviousKeyUUID, t.NewKeyUUID} {
		bytes += textBytes(text, len(text), maxPayload)
	}
	bytes += timesBytes(t.RotatedAt, t.VerifiedAt) + errorBytes(t.Error, t.FirstError)
	if t.KMIP != nil {
		bytes += evidenceBytes(t.KMIP)
	}
	if t.ReplacedOutside != "" {
		bytes += len(`"replacedOutside":"",`) + textBytes(t.ReplacedOutside, len(t.ReplacedOutside), maxPayload)
	}
	switch {
	case !t.compact:
		bytes += emptyFieldsBytes
	case t.Ambiguous || t.CarriedOver:
		bytes += len(`"carriedOver":true,`) * 2
	}
	return bytes
}

// evidenceBytes is the number of bytes of the evidence's JSON, or a few more,
// without the key's name.
func evidenceBytes(e *KeyEvidence) int {
	bytes := len(`"kmip":{"outcome":""},`) + len(e.Outcome)
	if e.State != "" {
		bytes += len(`"state":"",`) + textBytes(e.State, len(e.State), maxPayload)
	}
	if e.Algorithm != "" {
		bytes += len(`"algorithm":"",`) + textBytes(e.Algorithm, len(e.Algorithm), maxPayload)
	}
	if e.Name != "" {
		bytes += len(`"name":"",`)
	}
	if e.Length != 0 {
		bytes += len(`"length":-9223372036854775808,`)
	}
	for _, at := range []*time.Time{e.InitialDate, e.ActivationDate, &e.AskedAt} {
		if at != nil && !at.IsZero() {
			bytes += len(`"activationDate":,`) + timeBytes
		}
	}
	return bytes
}

// maxAnswerResult limits an update's answer without its fields that are no part of
// the result, in bytes of JSON.
const maxAnswerResult = maxUpdateAnswer - 20_000

// maxAnswerRecords is the most records that may fit into an answer.
func maxAnswerRecords(records int) int {
	const leastBytes = 200 // of a record
	return min(records, maxAnswerResult/leastBytes)
}

// fitAnswer makes the answer of an update fit. Unlike a result it may leave out
// records: the query has them. first copies the result with the n records that are
// shown first.
func fitAnswer(records int, first func(n int) rotationResult) (fitted rotationResult, notListed int) {
	for n := maxAnswerRecords(records); ; n = n * 2 / 3 {
		result := first(n)
		result.fit(maxAnswerResult)
		if n == 0 || jsonBytes(result) <= maxAnswerResult {
			return result, records - n
		}
	}
}

func (p *Progress) fitAnswer() {
	fitted, notListed := fitAnswer(len(p.Targets), func(n int) rotationResult {
		result := p.RotateClusterResult
		result.Targets = slices.Clone(topRows(p.Targets, n, func(t TargetRecord) Status { return t.Status }))
		result.Actions = slices.Clone(p.Actions)
		return &result
	})
	p.RotateClusterResult, p.TargetsNotListed = *fitted.(*RotateClusterResult), notListed
}

// plainRecord has the JSON of a TargetRecord.
type plainRecord TargetRecord

// compactRecord is a TargetRecord whose JSON leaves out empty fields.
type compactRecord struct {
	Target
	Status          Status       `json:"status"`
	PreviousKeyUUID string       `json:"previousKeyUUID,omitempty"`
	ReplacedOutside string       `json:"replacedOutside,omitempty"`
	NewKeyUUID      string       `json:"newKeyUUID,omitempty"`
	RotatedAt       *time.Time   `json:"rotatedAt,omitempty"`
	VerifiedAt      *time.Time   `json:"verifiedAt,omitempty"`
	KMIP            *KeyEvidence `json:"kmip,omitempty"`
	Attempts        int          `json:"attempts,omitempty"`
	Ambiguous       bool         `json:"ambiguous,omitempty"`
	CarriedOver     bool         `json:"carriedOver,omitempty"`
	Error           *TargetError `json:"error,omitempty"`
	FirstError      *TargetError `json:"firstError,omitempty"`
	compact         bool
}

// MarshalJSON leaves out empty fields where the result would be too large for
// Temporal otherwise.
func (t TargetRecord) MarshalJSON() ([]byte, error) {
	if t.compact {
		return json.Marshal(compactRecord(t))
	}
	return json.Marshal(plainRecord(t))
}
