package activities_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"keyturn/activities"
	"keyturn/internal/kmipevidence"
)

// Two records of a key say together what is needed by either, in any order.
func TestMergedKeyRecords(t *testing.T) {
	early := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	late := early.AddDate(1, 0, 0)
	needed := func(until *time.Time) activities.KeyRecord {
		return activities.KeyRecord{Verdict: activities.VerdictNeeded, NeededUntil: until, Snapshots: 1, OldestSnapshot: until, NewestSnapshot: until}
	}
	only := func(v activities.Verdict) activities.KeyRecord { return activities.KeyRecord{Verdict: v} }
	for i, c := range []struct {
		a, b    activities.KeyRecord
		verdict activities.Verdict
		until   *time.Time
	}{
		{needed(&early), needed(&late), activities.VerdictNeeded, &late},
		{needed(&early), needed(nil), activities.VerdictNeeded, nil},
		{needed(&early), only(activities.VerdictUnknown), activities.VerdictNeeded, &early},
		{needed(&early), only(activities.VerdictCurrent), activities.VerdictCurrent, nil},
		{only(activities.VerdictNamedByNoSnapshot), only(activities.VerdictUnknown), activities.VerdictUnknown, nil},
		{only(activities.VerdictNamedByNoSnapshot), only("aNewVerdict"), activities.VerdictUnknown, nil},
	} {
		for _, merged := range []activities.KeyRecord{activities.MergeKeyRecords(c.a, c.b), activities.MergeKeyRecords(c.b, c.a)} {
			assert.Equal(t, c.verdict, merged.Verdict, "%d", i)
			assert.Equal(t, c.until, merged.NeededUntil, "%d", i)
			assert.Equal(t, c.a.Snapshots+c.b.Snapshots, merged.Snapshots, "%d", i)
		}
	}
	merged := activities.MergeKeyRecords(needed(&early), needed(&late))
	assert.Equal(t, &early, merged.OldestSnapshot)
	assert.Equal(t, &late, merged.NewestSnapshot)

	// Of two answers about a key, the later one holds; no answer is worse than any.
	answered := func(outcome kmipevidence.Outcome, at time.Time) activities.KeyRecord {
		return activities.KeyRecord{KMIP: &kmipevidence.Evidence{Outcome: outcome, AskedAt: at}}
	}
	for _, c := range []struct{ a, b activities.KeyRecord }{
		{answered(kmipevidence.OutcomeWitnessed, early), answered(kmipevidence.OutcomeUnreachable, late)},
		{answered(kmipevidence.OutcomeWitnessed, late), answered(kmipevidence.OutcomeAbsent, early)},
		{answered(kmipevidence.OutcomeWitnessed, early), activities.KeyRecord{}},
	} {
		assert.Equal(t, kmipevidence.OutcomeWitnessed, activities.MergeKeyRecords(c.a, c.b).KMIP.Outcome)
		assert.Equal(t, kmipevidence.OutcomeWitnessed, activities.MergeKeyRecords(c.b, c.a).KMIP.Outcome)
	}

	many := activities.KeyRecord{Verdict: activities.VerdictCurrent}
	for i := range 60 {
		many = activities.MergeKeyRecords(many, activities.KeyRecord{Verdict: activities.VerdictCurrent, Hosts: []string{fmt.Sprintf("host-%02d:27017", i)}})
	}
	assert.Len(t, many.Hosts, 50)
	assert.True(t, many.NamesLeftOut)
}
