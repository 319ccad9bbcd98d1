package workflows

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"keyturn/internal/ellipsis"
)

// temporalLimit is what Temporal takes as one payload.
const temporalLimit = 2 << 20

// largest is the result of a rotation in which everything went wrong.
func largest(text string) *RotateClusterResult {
	at := time.Date(2026, 11, 25, 19, 39, 8, 123_000_000, time.UTC)
	result := &RotateClusterResult{
		Connection: "default", ProjectID: strings.Repeat("a", 24), ClusterID: strings.Repeat("b", 24), ClusterName: "orders",
		Outcome: OutcomePartial, StartedAt: at, FinishedAt: &at,
		Change:   Change{Ticket: strings.Repeat("\U0001F511", maxName), RequestedBy: "dana", Reason: ellipsis.Cut(text, maxText)},
		Approval: &Approval{By: "lee", At: at, Comment: text},
	}
	for i := range maxTargets {
		id := fmt.Sprintf("%024x", i)
		result.Targets = append(result.Targets, TargetRecord{
			Target: Target{ClusterID: id, Name: fmt.Sprintf("orders-%d", i), Role: RoleShard}, Status: StatusFailed,
			PreviousKeyUUID: "0f8b7a52-9f3c-4d0a-8b1e-" + id[:12], NewKeyUUID: "1f8b7a52-9f3c-4d0a-8b1e-" + id[:12],
			RotatedAt: &at, VerifiedAt: &at, Attempts: 3, Ambiguous: i%2 == 0, KMIP: fullEvidence(text),
			Error:      &TargetError{Type: ErrorOpsManagerUnavailable, Message: text},
			FirstError: &TargetError{Type: ErrorUnexpectedResponse, Message: text},
		})
	}
	log := result.actionLog()
	for i := range maxActions {
		action := Action{At: at, By: strings.Repeat("\U0001F511", maxName), Action: SkipUpdate, Reason: text}
		for j := range maxActionTargets {
			action.Targets = append(action.Targets, fmt.Sprintf("orders-%d", i+j))
		}
		*log.actions = append(*log.actions, action)
	}
	return result
}

func fullEvidence(name string) *KeyEvidence {
	at := time.Date(2026, 11, 25, 19, 39, 8, 123_000_000, time.UTC)
	return &KeyEvidence{
		Outcome: EvidenceUnreachable, State: "Destroyed Compromised", InitialDate: &at, ActivationDate: &at, Algorithm: "AES", Length: 256, AskedAt: at,
		// The valid part of a long text is enough, and takes less time than all of it.
		Name: ellipsis.Cut(strings.ToValidUTF8(name[:min(len(name), 4*maxEvidenceText)], "?"), maxEvidenceText),
	}
}

// Evidence becomes shorter before a record loses anything, and its outcome stays
// with every verified target of the largest rotation.
func TestEvidenceOfTheLargestRotationKeepsItsOutcome(t *testing.T) {
	t.Parallel()
	for name, text := range hostileTexts {
		t.Run(name, func(t *testing.T) {
			result := largest("")
			for i := range result.Targets {
				record := &result.Targets[i]
				record.Status, record.Error, record.FirstError, record.KMIP = StatusVerified, nil, nil, fullEvidence(text)
			}
			few := *result
			few.Targets = few.Targets[:300]
			few.fit(maxPayload)
			assert.Equal(t, fullEvidence(text), few.Targets[0].KMIP)

			result.fit(maxPayload)
			data, err := json.Marshal(result)
			require.NoError(t, err)
			assert.Less(t, len(data), maxPayload)
			var decoded RotateClusterResult
			require.NoError(t, json.Unmarshal(data, &decoded))
			for _, record := range decoded.Targets {
				require.NotNil(t, record.KMIP)
				require.Equal(t, EvidenceUnreachable, record.KMIP.Outcome)
			}
		})
	}
}

// What is counted of evidence is what its JSON takes.
func TestEvidenceBytesAreThoseOfTheJSON(t *testing.T) {
	t.Parallel()
	full := fullEvidence("")
	for _, e := range []KeyEvidence{*full, {Outcome: EvidenceForbidden}, {Outcome: EvidenceWitnessed, State: "Active", InitialDate: full.InitialDate}} {
		without, with := TargetRecord{compact: true}, TargetRecord{compact: true, KMIP: &e}
		assert.GreaterOrEqual(t, evidenceBytes(&e), jsonBytes(with)-jsonBytes(without))
		assert.Less(t, evidenceBytes(&e), jsonBytes(with)-jsonBytes(without)+60)
	}
}

var hostileTexts = map[string]string{
	"ASCII":        strings.Repeat("x", 100_000),
	"escaped HTML": strings.Repeat("<", 100_000),
	"controls":     strings.Repeat("\x01", 100_000),
	"emoji":        strings.Repeat("\U0001F511", 100_000),
	"no UTF-8":     strings.Repeat("\xff", 100_000),
	"quotes":       strings.Repeat(`"\`, 50_000),
}

func rotationOf(result *RotateClusterResult) *clusterRotation {
	r := &clusterRotation{rotation: &rotation{common: result.common()}, clusterName: result.ClusterName}
	r.input.Connection, r.input.ProjectID, r.input.ClusterID = result.Connection, result.ProjectID, result.ClusterID
	r.kind = r
	r.setTargets(result.Targets)
	return r
}

func TestLargestResultFits(t *testing.T) {
	t.Parallel()
	for name, text := range hostileTexts {
		t.Run(name, func(t *testing.T) {
			r := rotationOf(largest(text))
			records := r.records()
			data, err := json.Marshal(records)
			require.NoError(t, err)
			assert.Less(t, len(data), maxPayload)
			var decoded RotateClusterResult
			require.NoError(t, json.Unmarshal(data, &decoded))
			require.Len(t, decoded.Targets, maxTargets)
			for i, got := range decoded.Targets {
				want := r.clusterTargets[i]
				require.Equal(t, want.Error.Type, got.Error.Type)
				got.Error, want.Error, want.FirstError, got.FirstError, want.KMIP, got.KMIP = nil, nil, nil, nil, nil, nil
				require.Equal(t, want, got)
			}
			assert.NotEmpty(t, decoded.Actions)
			assert.Equal(t, maxActions, len(decoded.Actions)+decoded.ActionsNotListed)
			assert.Equal(t, text, r.clusterTargets[0].Error.Message, "the rotation's own records stay as they are")
			assert.Equal(t, fullEvidence(text), r.clusterTargets[0].KMIP)

			query, err := json.Marshal(r.currentProgress())
			require.NoError(t, err)
			assert.Less(t, len(query), temporalLimit)

			answer, err := json.Marshal(r.updateAnswer())
			require.NoError(t, err)
			assert.Less(t, len(answer), maxUpdateAnswer)
			var p Progress
			require.NoError(t, json.Unmarshal(answer, &p))
			assert.NotEmpty(t, p.Targets)
			assert.Equal(t, maxTargets, len(p.Targets)+p.TargetsNotListed)
			assert.Equal(t, maxTargets, p.Counts[StatusFailed])

			assert.Less(t, len(failure(ErrorAborted, nil, "%s", text).Error()), 5*maxMessage)
		})
	}
}

// Texts are as long as there is room for them.
func TestTextsAreShortenedOnlyAsMuchAsNeeded(t *testing.T) {
	t.Parallel()
	for targets, want := range map[int]int{10: 2000, 280: 2000, 1000: 500, 4001: 20} {
		result := largest(strings.Repeat("\u00e9", maxText))
		result.Actions = nil
		result.Targets = result.Targets[:targets]
		for i := range result.Targets {
			result.Targets[i].FirstError, result.Targets[i].KMIP = nil, nil
		}
		result.fit(maxPayload)
		assert.Equal(t, want, len([]rune(result.Targets[0].Error.Message)), "%d targets", targets)
		assert.LessOrEqual(t, jsonBytes(result), maxPayload)
	}
	small := largest("short")
	small.Targets = small.Targets[:2]
	before, err := json.Marshal(small)
	require.NoError(t, err)
	small.fit(maxPayload)
	after, err := json.Marshal(small)
	require.NoError(t, err)
	assert.Equal(t, string(before), string(after))
}

func TestTextBytesAreThoseOfTheJSON(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "plain", "<>&\u2028\u2029", "\x00\x01\x1f\x7f", "\"\\\n\r\t\b\f", "é\U0001F511", "\xff\xfea", "ab\u00adc"} {
		assert.GreaterOrEqual(t, textBytes(text, maxText, maxPayload), jsonBytes(text)-2, "%q", text)
		assert.LessOrEqual(t, textBytes(text, maxText, maxPayload), jsonBytes(text)+8, "%q", text)
	}
}

// Through Nexus, the details of a failure travel in Base64.
func TestDetailsOfAFailureFitIntoBase64(t *testing.T) {
	t.Parallel()
	details := func(targets int) *RotateClusterResult {
		result := largest(strings.Repeat("<", maxText))
		result.Targets = result.Targets[:targets]
		err := failure(ErrorPartialFailure, rotationOf(result).records(), "partial")
		converter := temporal.GetDefaultFailureConverter()
		records, found := RotateClusterResultOf(converter.FailureToError(converter.ErrorToFailure(err)))
		require.True(t, found)
		require.Len(t, records.Targets, targets)
		return records
	}
	for _, targets := range []int{10, 1_000, 3_500} {
		records := details(targets)
		assert.LessOrEqual(t, base64.StdEncoding.EncodedLen(jsonBytes(records)), temporalLimit, targets)
		assert.NotEmpty(t, records.Targets[0].NewKeyUUID)
		assert.Equal(t, ErrorOpsManagerUnavailable, records.Targets[0].Error.Type)
	}
	whole := rotationOf(largest(strings.Repeat("<", maxText))).records().(*RotateClusterResult)
	assert.Equal(t, whole, fittedForFailure(whole), "what is too large anyway loses nothing more")
}
