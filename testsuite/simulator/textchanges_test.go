package simulator

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// randomText writes a random JSON value with odd numbers, escapes and white space.
func randomText(r *rand.Rand, depth int) string {
	space := func() string { return []string{"", "", " ", "\n\t"}[r.IntN(4)] }
	inside := func(open, close string, entry func(i int) string) string {
		var entries []string
		for i := range r.IntN(5) {
			entries = append(entries, entry(i))
		}
		return open + space() + strings.Join(entries, ",") + space() + close
	}
	switch kind := r.IntN(6); {
	case depth > 0 && kind < 2:
		return inside("{", "}", func(i int) string {
			return fmt.Sprintf(`%s"n%d"%s:%s%s`, space(), i, space(), space(), randomText(r, depth-1)) + space()
		})
	case depth > 0 && kind == 2:
		return inside("[", "]", func(int) string { return space() + randomText(r, depth-1) + space() })
	case kind == 3:
		return []string{`"a]}\"{["`, `"\\"`, `""`, `"\ud800"`, `"ä, :"`}[r.IntN(5)]
	}
	return []string{"1.0", "-0", "1e+3", "null", "true", "12345678901234567890123"}[r.IntN(6)]
}

// Every change that the judge of a PUT reports can be undone, and nothing else
// differs.
func TestChangesAreCompleteAndExact(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		before := randomText(r, 4)
		after := []byte(before)
		for range r.IntN(4) {
			at := r.IntN(len(after) + 1)
			to := min(at+r.IntN(6), len(after))
			after = slices.Concat(after[:at], []byte([]string{"", "x", `"`, ",", ` "lone`, "1.0"}[r.IntN(6)]), after[to:])
		}
		require.Equal(t, string(after), applied(t, before, textChanges([]byte(before), after)), "seed %d", seed)
	}
}

func applied(t *testing.T, text string, changes []TextChange) string {
	t.Helper()
	var made strings.Builder
	at := 0
	for _, c := range changes {
		require.GreaterOrEqual(t, c.Offset, at)
		made.WriteString(text[at:c.Offset])
		at = c.Offset + c.RemovedBytes
		require.Equal(t, c.Removed, text[c.Offset:at])
		require.Positive(t, len(c.Removed)+len(c.Added), "a change changes something")
		require.Len(t, c.Added, c.AddedBytes)
		made.WriteString(c.Added)
	}
	return made.String() + text[at:]
}

// The reader of texts finds what the standard library decodes.
func TestTheReaderAgreesWithTheStandardLibrary(t *testing.T) {
	found := 0
	for seed := range uint64(1000) {
		text := []byte(randomText(rand.New(rand.NewPCG(seed, 2)), 5))
		var value any
		require.NoError(t, json.Unmarshal(text, &value), "%s", text)
		everyMember(text, func(path []string, _ string, at span) {
			found++
			var part any
			require.NoError(t, json.Unmarshal(text[at.from:at.to], &part), "%s", text)
			require.Equal(t, valueAt(value, path), part, "%s at %q", text, path)
			again, ok := find(text, path...)
			require.True(t, ok)
			require.Equal(t, at, again)
			require.Equal(t, "/"+strings.Join(path, "/"), pathAt(text, at.nameAt))

			removed := withoutMember(text, at)
			require.True(t, json.Valid(removed), "%s without %q: %s", text, path, removed)
			replaced := withValue(text, `"other"`, path...)
			require.True(t, json.Valid(replaced))
			added := withValue(text, `1`, slices.Concat(path[:len(path)-1], []string{"new"})...)
			require.True(t, json.Valid(added), "%s", added)
			require.Equal(t, string(text), string(without(added, slices.Concat(path[:len(path)-1], []string{"new"})...)))
		})
	}
	assert.Greater(t, found, 500)
}

func valueAt(value any, path []string) any {
	for _, step := range path {
		switch v := value.(type) {
		case map[string]any:
			value = v[step]
		case []any:
			var i int
			if _, err := fmt.Sscan(step, &i); err != nil {
				return nil
			}
			value = v[i]
		}
	}
	return value
}

// Times are distinguished from other changes wherever a process has the field.
func TestTimesAreDistinguishedFromOtherChanges(t *testing.T) {
	const before = `{"version":1,"processes":[{"name":"a"},{"x":1.0,"name":"b","lastKmipMasterKeyRotation":"2025-01-01T00:00:00Z"},{"name":"c"}]}`
	const field = `"lastKmipMasterKeyRotation":"2026-01-01T00:00:00Z"`
	for after, want := range map[string][]string{
		strings.Replace(before, `{"name":"a"}`, `{`+field+`,"name":"a"}`, 1):                  nil,
		strings.Replace(before, `{"name":"a"}`, `{"name":"a",`+field+`}`, 1):                  nil,
		strings.Replace(before, `2025-01-01`, `2026-01-01`, 1):                                nil,
		strings.Replace(before, `{"name":"a"}`, `{"name":"a", `+field+`}`, 1):                 {`"" ", "`},
		strings.Replace(before, `{"name":"c"}`, `{`+field+`,"name":"c","y":2}`, 1):            {`"" ",\"y\":2"`},
		strings.Replace(before, `1.0,"name":"b",`, `1,"name":"b","y":`+`{`+field+`},`, 1):     {`"1.0" "1"`, `"" ",\"y\":{\"lastKmipMasterKeyRotation\":\"2026-01-01T00:00:00Z\"}"`},
		strings.Replace(before, `"name":"a"`, `"name":"d"`, 1):                                {`"\"a\"" "\"d\""`},
		strings.Replace(before, `,"lastKmipMasterKeyRotation":"2025-01-01T00:00:00Z"`, "", 1): {`",\"lastKmipMasterKeyRotation\":\"2025-01-01T00:00:00Z\"" ""`},
	} {
		_, changes := changesBetween([]byte(before), []byte(after))
		var got []string
		for _, c := range changes {
			got = append(got, fmt.Sprintf("%q %q", c.Removed, c.Added))
		}
		assert.Equal(t, want, got, after)
	}
}

// Texts that have nothing in common are one change: finding more would take too long.
func TestTextsWithNothingInCommon(t *testing.T) {
	before, after := strings.Repeat("1,", 200_000), strings.Repeat("22,", 200_000)
	changes := textChanges([]byte(before), []byte(after))
	require.Len(t, changes, 1)
	assert.Equal(t, len(before)-1, changes[0].RemovedBytes)
	assert.Len(t, changes[0].Added, maxChangeText)
}
