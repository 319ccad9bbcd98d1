package opsmanager

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var fuzzedTime = time.Date(2026, 11, 26, 1, 2, 3, 456, time.FixedZone("x", 3600))

const fuzzedMember = `"lastKmipMasterKeyRotation":"2026-11-26T00:02:03Z",`

// place is a process as another tokenizer than the product's finds it.
type place struct {
	name     string
	inside   int
	from, to int  // of the field's value
	hasField bool // the process has a lastKmipMasterKeyRotation
}

// placesOf finds the processes with the standard library's tokens.
func placesOf(text []byte) (places []place, err error) {
	start := 0
	if bytes.HasPrefix(text, byteOrderMark) {
		start = len(byteOrderMark)
	}
	d := json.NewDecoder(bytes.NewReader(text[start:]))
	next := func() json.Token {
		var token json.Token
		if err == nil {
			token, err = d.Token()
		}
		return token
	}
	skip := func() {
		var value json.RawMessage
		if err == nil {
			err = d.Decode(&value)
		}
	}
	next() // {
	for err == nil && d.More() {
		if next() != "processes" {
			skip()
			continue
		}
		next() // [
		for err == nil && d.More() {
			next() // {
			p := place{inside: start + int(d.InputOffset())}
			for err == nil && d.More() {
				switch next() {
				case "name":
					var name any
					err = d.Decode(&name)
					p.name, _ = name.(string)
				case rotationField:
					var value json.RawMessage
					err = d.Decode(&value)
					p.hasField, p.to = true, start+int(d.InputOffset())
					p.from = p.to - len(value)
				default:
					skip()
				}
			}
			next() // }
			places = append(places, p)
		}
		next() // ]
	}
	return places, err
}

// undo takes the chosen values out of a result again, and puts the original's back.
func undo(t *testing.T, original, result []byte, chosen map[string]bool) []byte {
	before, err := placesOf(original)
	require.NoError(t, err)
	after, err := placesOf(result)
	require.NoError(t, err)
	require.Len(t, after, len(before))
	var restored []byte
	at := 0
	for i, p := range after {
		require.Equal(t, before[i].name, p.name)
		if !chosen[p.name] {
			continue
		}
		require.True(t, p.hasField)
		require.Equal(t, `"2026-11-26T00:02:03Z"`, string(result[p.from:p.to]))
		if before[i].hasField {
			restored = append(append(restored, result[at:p.from]...), original[before[i].from:before[i].to]...)
			at = p.to
			continue
		}
		require.True(t, bytes.HasPrefix(result[p.inside:], []byte(fuzzedMember)))
		restored = append(restored, result[at:p.inside]...)
		at = p.inside + len(fuzzedMember)
	}
	return append(restored, result[at:]...)
}

// decoded is a document with every number as it is written.
func decoded(t *testing.T, text []byte) map[string]any {
	d := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(text, byteOrderMark)))
	d.UseNumber()
	var value map[string]any
	require.NoError(t, d.Decode(&value))
	return value
}

// checkSplice proves, for any text, that nothing but the chosen values changes.
func checkSplice(t *testing.T, text []byte, choice uint64) {
	original := bytes.Clone(text)
	config, err := newAutomationConfig(text, false)
	if err != nil {
		return
	}
	require.True(t, json.Valid(bytes.TrimPrefix(text, byteOrderMark)), "only valid JSON is accepted")
	var names []string
	count := map[string]int{}
	for _, p := range config.get().layout.processes {
		count[p.name]++
	}
	chosen := map[string]bool{}
	for i, p := range config.get().layout.processes {
		if p.name != "" && count[p.name] == 1 && choice>>(i%64)&1 == 1 {
			names, chosen[p.name] = append(names, p.name), true
		}
	}
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	changed, err := config.WithRotationTime(names, fuzzedTime)
	if len(names) == 0 {
		require.Error(t, err)
		return
	}
	require.NoError(t, err)
	result := changed.get().text
	require.Equal(t, string(original), string(text), "the original stays as it is")
	require.Equal(t, string(original), string(undo(t, original, result, chosen)))
	want := decoded(t, original)
	for _, process := range want["processes"].([]any) {
		fields := process.(map[string]any)
		if name, _ := fields["name"].(string); chosen[name] {
			fields[rotationField] = "2026-11-26T00:02:03Z"
		}
	}
	require.Equal(t, want, decoded(t, result))
	again, err := changed.WithRotationTime(names, fuzzedTime)
	require.NoError(t, err)
	require.True(t, again.Equal(changed), "the same time changes nothing")
}

var spliceSeeds = []string{
	`{"version":1,"processes":[{"name":"a"},{"name":"b","lastKmipMasterKeyRotation":"2025-01-01T00:00:00Z"}]}`,
	`{"processes":[{"name":"a","lastKmipMasterKeyRotation":null,"x":1.0}],"version":2}`,
	"\ufeff \n{ \"version\" :\t3 , \"processes\" : [ { \"x\" : 1e400 , \"name\" : \"a\" , \"lastKmipMasterKeyRotation\" : { \"$date\" : 1 } } , { \"name\" : \"b\" } ] } \r\n",
	`{"version":4,"pro\u0063esses":[{"n\u0061me":"\u0061","lastKmip\u004dasterKeyRotation":[1,{"name":"a"}]}]}`,
	`{"version":5,"x":{"processes":[{"name":"a","lastKmipMasterKeyRotation":1}]},"processes":[{"name":"a","y":{"name":"b","lastKmipMasterKeyRotation":2}},{"name":"b"}]}`,
	`{"version":6,"processes":[{"name":"a"},{"name":"a"},{"name":7},{},{"name":""}]}`,
	`{"version":7,"processes":[{"name":"a","name":"b"}]}`,
	`{"version":8,"version":9,"processes":[]}`,
	`{"version":9223372036854775807,"processes":[{"name":"\ud800"},{"name":"\ud83d\ude00"},{"name":"ä"}],"n":123456789012345678901234567890.10}`,
	`{"version":1,"Processes":[{"name":"a"}],"processes":[{"Name":"a","name":"A","LastKmipMasterKeyRotation":1}]}`,
	`{"version":1,"processes":[{"name":"]},{\"name\":\"a\""},{"name":"a","s":"\"lastKmipMasterKeyRotation\":\"x\""}]}`,
	`{"version":1,"processes":[{"name":"a"}]} {}`, `{"version":1,"processes":[{"name":"a"}]`, `{"version":1.0,"processes":[]}`, `{}`, `[]`, ``, "\ufeff",
}

func FuzzRotationTime(f *testing.F) {
	for _, seed := range spliceSeeds {
		f.Add([]byte(seed), ^uint64(0))
		f.Add([]byte(seed), uint64(2))
	}
	f.Fuzz(func(t *testing.T, text []byte, choice uint64) { checkSplice(t, text, choice) })
}

// writer writes random documents: valid ones that a fuzzer rarely finds.
type writer struct {
	r *rand.Rand
	b strings.Builder
}

func (w *writer) space() {
	w.b.WriteString(strings.Repeat(" ", w.r.IntN(3)) + []string{"", "\n", "\t", "\r\n"}[w.r.IntN(4)])
}

func (w *writer) text(s string) {
	w.space()
	w.b.WriteByte('"')
	for _, c := range s {
		if w.r.IntN(4) == 0 {
			fmt.Fprintf(&w.b, `\u%04x`, c)
		} else {
			w.b.WriteRune(c)
		}
	}
	w.b.WriteByte('"')
	w.space()
}

func (w *writer) value(depth int) {
	switch n := w.r.IntN(7); {
	case n == 0 && depth > 0:
		w.list(w.r.IntN(4), func(int) { w.value(depth - 1) })
	case n <= 2 && depth > 0:
		names := []string{"name", "processes", rotationField, "version", "x"}
		w.object(names[:w.r.IntN(6)], func(string) { w.value(depth - 1) })
	case n == 3:
		w.text([]string{"a0", "", "]}{[", rotationField}[w.r.IntN(4)])
	default:
		w.space()
		w.b.WriteString([]string{"1.0", "-0", "1E+400", "12345678901234567890123", "true", "null"}[w.r.IntN(6)])
		w.space()
	}
}

func (w *writer) list(n int, each func(int)) {
	w.space()
	w.b.WriteByte('[')
	for i := range n {
		if i > 0 {
			w.b.WriteByte(',')
		}
		each(i)
	}
	w.space()
	w.b.WriteByte(']')
	w.space()
}

func (w *writer) object(names []string, value func(string)) {
	w.space()
	w.b.WriteByte('{')
	for i, j := range w.r.Perm(len(names)) {
		if i > 0 {
			w.b.WriteByte(',')
		}
		w.text(names[j])
		w.b.WriteByte(':')
		value(names[j])
	}
	w.space()
	w.b.WriteByte('}')
	w.space()
}

func randomConfig(seed uint64) []byte {
	w := &writer{r: rand.New(rand.NewPCG(seed, 1))}
	if w.r.IntN(4) == 0 {
		w.b.WriteString("\ufeff")
	}
	w.object([]string{"version", "processes", "args2_6", "replicaSets", "Processes"}, func(name string) {
		switch name {
		case "version":
			w.space()
			fmt.Fprint(&w.b, w.r.Int64())
		case "processes":
			w.list(w.r.IntN(6), func(i int) {
				names := []string{"name", "args2_6", "Name", "x", rotationField}
				w.object(names[:4+w.r.IntN(2)], func(name string) {
					if name == "name" {
						w.text(fmt.Sprintf("a%d", i))
					} else {
						w.value(3)
					}
				})
			})
		default:
			w.value(4)
		}
	})
	return []byte(w.b.String())
}

func TestRandomConfigurationsKeepEveryOtherByte(t *testing.T) {
	spliced := 0
	for seed := range uint64(3000) {
		text := randomConfig(seed)
		config, err := newAutomationConfig(text, false)
		require.NoError(t, err, "seed %d: %s", seed, text)
		if len(config.get().layout.processes) > 0 {
			spliced++
		}
		checkSplice(t, text, ^uint64(0))
		checkSplice(t, text, seed)
	}
	assert.Greater(t, spliced, 2000)
}

func TestRotationTimesAreRefused(t *testing.T) {
	config, err := newAutomationConfig([]byte(`{"version":1,"processes":[{"name":"a"},{"name":"b"},{"name":"b"},{"name":""},{}]}`), true)
	require.NoError(t, err)
	for mentions, names := range map[string][]string{
		`0 processes have the name "z"`: {"a", "z"},
		`2 processes have the name "b"`: {"a", "b"},
		`0 processes have the name ""`:  {""},
		"no process":                    nil,
	} {
		changed, err := config.WithRotationTime(names, fuzzedTime)
		require.ErrorContains(t, err, mentions)
		assert.True(t, changed.IsZero())
	}
	changed, err := config.WithRotationTime([]string{"a", "a"}, fuzzedTime)
	require.NoError(t, err)
	assert.True(t, changed.HasNoSecrets())
	assert.Equal(t, `{"version":1,"processes":[{`+fuzzedMember+`"name":"a"},{"name":"b"},{"name":"b"},{"name":""},{}]}`, string(changed.get().text))
}

func TestTextsThatAreNoConfigurationAreRefused(t *testing.T) {
	for _, text := range []string{
		"", "\ufeff", "[]", "{}", `{"version":1}`, `{"processes":[]}`, `{"version":"1","processes":[]}`, `{"version":1.0,"processes":[]}`,
		`{"version":1,"processes":{}}`, `{"version":1,"processes":[7]}`, `{"version":1,"processes":[]}{}`, `{"version":1,"processes":[]`,
		`{"version":1,"processes":[{"name":"a","name":"b"}]}`, `{"version":1,"\u0076ersion":2,"processes":[]}`, `{"version":1,"processes":[],"x":{"y":{"z":1,"z":2}}}`,
		"\ufeff\ufeff" + `{"version":1,"processes":[]}`,
	} {
		_, err := newAutomationConfig([]byte(text), false)
		require.Error(t, err, "%q", text)
	}
}

// largeConfig has about 3 MB and 300 processes.
func largeConfig() (text []byte, names []string) {
	var b strings.Builder
	b.WriteString(`{"version":1,"auth":{"x":"` + strings.Repeat("s", 1000) + `"},"processes":[`)
	for i := range 300 {
		if i > 0 {
			b.WriteByte(',')
		}
		name := fmt.Sprintf("m-%d", i)
		names = append(names, name)
		fmt.Fprintf(&b, `{"name":%q,"args2_6":{"net":{"port":27017},"odd":[`, name)
		for j := range 500 {
			fmt.Fprintf(&b, `{"k%d":1.0,"t":"x"},`, j)
		}
		b.WriteString(`1]}}`)
	}
	b.WriteString("]}")
	return []byte(b.String()), names
}

func BenchmarkPublish(b *testing.B) {
	text, names := largeConfig()
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		config, err := newAutomationConfig(text, true)
		if err == nil {
			config, err = config.WithRotationTime(names[:3], fuzzedTime)
		}
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Discard.Write(config.get().text)
	}
}
