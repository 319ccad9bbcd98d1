package ledger

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/internal/ledgerentry"
)

// tampered is a filled ledger whose database refuses nothing: its owner has
// dropped triggers and constraints.
type tampered struct {
	*store
	t       *testing.T
	ledger  *Ledger
	keys    PublicKeys          // none where entries are not signed
	entries []ledgerentry.Entry // by chain and sequence
	anchor  Anchor
	// found counts the mutations.
	found int
}

func newTampered(t *testing.T, s *store, signed bool) *tampered {
	var keys PublicKeys
	if signed {
		keys = s.sign(t)
	}
	ledger := s.open(t)
	deployment, fleet := rotation(ordersID, "orders", 3), rotation(ordersID, "orders", 4)
	deployment.Kind, deployment.Key = ledgerentry.KindDeployment, "deployment"
	fleet.Kind, fleet.Key, fleet.Clusters, fleet.ProjectID, fleet.ActedBy, fleet.ApprovedBy = ledgerentry.KindFleet, "fleet", nil, "", nil, ""
	for day := range 4 {
		appendAll(t, ledger, rotation(ordersID, "orders", day), rotation(usersID, "users", day))
	}
	appendAll(t, ledger, deployment, fleet)
	m := &tampered{store: s, t: t, ledger: ledger, keys: keys}
	var err error
	m.anchor, err = ledger.Anchor(t.Context())
	require.NoError(t, err)
	requireIntact(t, ledger, VerifyOptions{PublicKeys: keys, Anchor: &m.anchor}, 10, 4)
	s.exec(t, `ALTER TABLE ledger_entries RENAME TO original`)
	s.exec(t, `CREATE TABLE ledger_entries AS SELECT * FROM original`)
	m.entries = m.read()
	require.Len(t, m.entries, 10)
	require.NotEmpty(t, m.verify().MissingTriggers)
	require.Empty(t, m.verify().Faults)
	return m
}

func (m *tampered) read() []ledgerentry.Entry {
	entries := collect(m.t, m.ledger.Entries(m.t.Context(), Filter{}))
	slices.SortFunc(entries, func(a, b ledgerentry.Entry) int {
		return cmp.Or(cmp.Compare(a.Chain, b.Chain), cmp.Compare(a.Sequence, b.Sequence))
	})
	return entries
}

func (m *tampered) verify() Verification {
	return verify(m.t, m.ledger, VerifyOptions{PublicKeys: m.keys})
}

func (m *tampered) restore() {
	m.exec(m.t, `DELETE FROM ledger_entries`)
	m.exec(m.t, `INSERT INTO ledger_entries SELECT * FROM original`)
}

// find mutates, and requires that it is found without an anchor. It returns the
// first fault of each chain.
func (m *tampered) find(name string, mutate func()) map[string]Fault {
	m.t.Helper()
	mutate()
	defer m.restore()
	faults := map[string]Fault{}
	for _, fault := range m.verify().Faults {
		if _, listed := faults[fault.Chain]; !listed {
			faults[fault.Chain] = fault
		}
	}
	assert.NotEmpty(m.t, faults, name)
	m.found++
	return faults
}

// findAt requires that the fault is found in this very entry.
func (m *tampered) findAt(name string, at ledgerentry.Entry, mutate func()) {
	m.t.Helper()
	fault := m.find(name, mutate)[at.Chain]
	assert.Equal(m.t, at.Sequence, fault.Sequence, "%s: %s", name, fault)
}

// set one column of one entry.
func (m *tampered) set(at ledgerentry.Entry, column string, value any) {
	m.exec(m.t, `UPDATE ledger_entries SET `+column+` = ? WHERE chain = ? AND sequence = ?`, value, at.Chain, at.Sequence)
}

// replace an entry with a changed one; place is where it stood.
func (m *tampered) replace(place ledgerentry.Entry, changed ledgerentry.Entry) {
	m.exec(m.t, `DELETE FROM ledger_entries WHERE chain = ? AND sequence = ?`, place.Chain, place.Sequence)
	m.add(changed)
}

func (m *tampered) add(entry ledgerentry.Entry) {
	values, err := columnValues(entry)
	require.NoError(m.t, err)
	m.exec(m.t, `INSERT INTO ledger_entries (`+columnList+`) VALUES (`+strings.Repeat(", ?", len(values))[2:]+`)`, values...)
}

// rehashed is an entry as a forger who can't sign writes it.
func (m *tampered) rehashed(entry ledgerentry.Entry) ledgerentry.Entry {
	document, err := entry.Document()
	require.NoError(m.t, err)
	entry.Hash = ledgerentry.HashOf(document)
	return entry
}

// The same mutations of a ledger with and without signatures.
func onTampered(t *testing.T, test func(*tampered)) {
	for _, signed := range []bool{false, true} {
		t.Run(fmt.Sprintf("signed=%t", signed), func(t *testing.T) {
			onEachDatabase(t, func(t *testing.T, s *store) {
				m := newTampered(t, s, signed)
				test(m)
				t.Logf("%d mutations", m.found)
			})
		})
	}
}

func TestVerifyFindsAChangeOfEveryColumn(t *testing.T) {
	onTampered(t, func(m *tampered) {
		for _, entry := range m.sample() {
			for _, column := range columns {
				for _, value := range m.otherValues(entry, column) {
					name := fmt.Sprintf("%s %d: %s = %v", entry.Chain, entry.Sequence, column, value)
					change := func() { m.set(entry, column, value) }
					if column == "chain" || column == "sequence" {
						m.find(name, change) // the entry is elsewhere
						continue
					}
					m.findAt(name, entry, change)
				}
			}
		}
	})
}

// everyPlace makes the mutations at more places of the chains. It takes minutes.
var everyPlace = flag.Bool("every-place", false, "mutate the first, a middle and the last entry of a chain, and those of other kinds")

// sample is one entry in the middle of a cluster's chain, and with -every-place
// also the chain's first and last, the deployment's and the fleet's.
func (m *tampered) sample() []ledgerentry.Entry {
	require.Equal(m.t, []int64{1, 1, 2, 3, 4, 1, 2, 3, 4, 1}, sequences(m.entries))
	if !*everyPlace {
		return []ledgerentry.Entry{m.entries[2]}
	}
	return []ledgerentry.Entry{m.entries[0], m.entries[1], m.entries[2], m.entries[4], m.entries[9]}
}

func sequences(entries []ledgerentry.Entry) (all []int64) {
	for _, entry := range entries {
		all = append(all, entry.Sequence)
	}
	return all
}

// otherValues of a column: no value, slightly other ones, other spellings of the
// same, and those of other entries.
func (m *tampered) otherValues(entry ledgerentry.Entry, column string) []any {
	index := slices.Index(columns, column)
	values := func(e ledgerentry.Entry) any {
		all, err := columnValues(e)
		require.NoError(m.t, err)
		return all[index]
	}
	current := values(entry)
	others := []any{nil}
	if number, ok := current.(int64); ok {
		others = append(others, number+1, -number, int64(0), int64(99))
	} else {
		text := current.(string)
		others = append(others, "", text+"x", text+" ", " "+text, text+"\n", strings.ToUpper(text), strings.ToLower(text),
			strings.Replace(text, ",", ", ", 1), strings.Replace(text, ".123Z", ".1230Z", 1), strings.Replace(text, "Z", "+00:00", 1),
			strings.TrimSuffix(text, "=")+"A", "null", "[]", "{}")
		if len(text) > 1 {
			others = append(others, text[1:], text[:len(text)-1])
		}
	}
	for _, entry := range m.sample() {
		others = append(others, values(entry))
	}
	distinct := map[any]bool{}
	return slices.DeleteFunc(others, func(value any) bool {
		known := distinct[value] || value == current
		distinct[value] = true
		return known
	})
}

// A forger also recomputes the hash. The next entry's link, a signature or an
// anchor finds it.
func TestVerifyFindsAChangeWithANewHash(t *testing.T) {
	onTampered(t, func(m *tampered) {
		for _, entry := range m.entries {
			for name, change := range map[string]func(*ledgerentry.Entry){
				"requestedBy":  func(e *ledgerentry.Entry) { e.RequestedBy = "mallory" },
				"finishedAt":   func(e *ledgerentry.Entry) { e.FinishedAt = e.FinishedAt.AddDate(0, 0, 1) },
				"body":         func(e *ledgerentry.Entry) { e.Body = json.RawMessage(`{}`) },
				"signingKeyId": func(e *ledgerentry.Entry) { e.SigningKeyID, e.Signature = "", "" },
			} {
				changed := entry
				change(&changed)
				changed = m.rehashed(changed)
				if changed.Hash == entry.Hash {
					continue // it was not signed before
				}
				last := !slices.ContainsFunc(m.entries, func(e ledgerentry.Entry) bool { return e.Chain == entry.Chain && e.Sequence > entry.Sequence })
				forge := func() { m.replace(entry, changed) }
				switch {
				case m.keys != nil:
					m.findAt(name, entry, forge)
				case !last:
					assert.Equal(m.t, ReasonLink, m.find(name, forge)[entry.Chain].Reason)
				default:
					m.findOnlyWithAnchor(name, entry.Chain, forge)
				}
			}
		}
	})
}

// findOnlyWithAnchor requires that a mutation is found with an anchor, and, as
// the documentation says, not without one.
func (m *tampered) findOnlyWithAnchor(name, chain string, mutate func()) {
	m.t.Helper()
	mutate()
	defer m.restore()
	assert.Empty(m.t, m.verify().Faults, name)
	result := verify(m.t, m.ledger, VerifyOptions{PublicKeys: m.keys, Anchor: &m.anchor})
	require.Len(m.t, result.Faults, 1, name)
	assert.Equal(m.t, ReasonAnchor, result.Faults[0].Reason, name)
	assert.Equal(m.t, chain, result.Faults[0].Chain, name)
	assert.Contains(m.t, result.Faults[0].Detail, timeColumn(m.anchor.TakenAt))
	m.found++
}

// Every member, element and value of a body, down to the deepest.
func TestVerifyFindsAChangeOfEveryPartOfABody(t *testing.T) {
	onTampered(t, func(m *tampered) {
		entry := m.entries[len(m.entries)/2]
		text := string(entry.Body)
		spellings := []string{text + " ", "\n" + text, strings.Replace(text, ":", ": ", 1), strings.Replace(text, `"attempts":1`, `"attempts":1.0`, 1),
			strings.Replace(text, `"attempts":1`, `"attempts":1,"attempts":1`, 1), strings.Replace(text, "e", `\u0065`, 1), text[:len(text)-1],
			strings.Replace(text, `"attempts":1`, `"attempts":1.00000000000000001`, 1), `[` + text + `]`, strings.Repeat("[", 3_000_000)}
		for _, body := range append(variants(m.t, entry.Body), spellings...) {
			require.NotEqual(m.t, text, body)
			m.findAt(body[:min(len(body), 200)], entry, func() { m.set(entry, "body", body) })
		}
		// With a new hash, a body that is not canonical does not fit either, at the end
		// of a chain, too, whoever has signed it.
		last := m.entries[len(m.entries)-1]
		for _, body := range spellings {
			changed := last
			changed.Body = json.RawMessage(body)
			changed = m.rehashed(changed)
			name := "with a new hash: " + body[:min(len(body), 200)]
			fault := m.find(name, func() { m.replace(last, changed) })[last.Chain]
			assert.Equal(m.t, ReasonMalformed, fault.Reason, name)
		}
	})
}

// variants of a JSON text, each with one change, in canonical form.
func variants(t *testing.T, text []byte) (all []string) {
	var root any
	require.NoError(t, json.Unmarshal(text, &root))
	emit := func() {
		changed, err := json.Marshal(root)
		require.NoError(t, err)
		canonical, err := ledgerentry.Canonicalize(changed)
		require.NoError(t, err)
		all = append(all, string(canonical))
	}
	var walk func(value any, set func(any))
	walk = func(value any, set func(any)) {
		for _, other := range []any{nil, true, false, 2.5, "other", []any{}, map[string]any{}} {
			if fmt.Sprintf("%#v", other) != fmt.Sprintf("%#v", value) {
				set(other)
				emit()
			}
		}
		set(value)
		switch value := value.(type) {
		case map[string]any:
			for key, member := range maps.Clone(value) {
				walk(member, func(other any) { value[key] = other })
				delete(value, key)
				emit()
				value[key+"x"] = member
				emit()
				delete(value, key+"x")
				value[key] = member
			}
		case []any:
			for i, element := range value {
				walk(element, func(other any) { value[i] = other })
			}
			set(append(slices.Clone(value), "added"))
			emit()
			set(value)
		case string:
			for _, other := range []string{value + " ", strings.ToUpper(value) + "X", "x" + value} {
				set(other)
				emit()
			}
			set(value)
		}
	}
	walk(root, func(other any) { root = other })
	return all
}

func TestVerifyFindsRemovedMovedAndAddedEntries(t *testing.T) {
	onTampered(t, func(m *tampered) {
		for i, entry := range m.entries {
			remove := func() {
				m.exec(m.t, `DELETE FROM ledger_entries WHERE chain = ? AND sequence = ?`, entry.Chain, entry.Sequence)
			}
			last := i == len(m.entries)-1 || m.entries[i+1].Chain != entry.Chain
			if last {
				m.findOnlyWithAnchor("remove the last", entry.Chain, remove)
			} else {
				m.findAt("remove", m.entries[i+1], remove)
				m.find("swap", func() {
					m.set(entry, "sequence", -1)
					m.set(m.entries[i+1], "sequence", entry.Sequence)
					m.exec(m.t, `UPDATE ledger_entries SET sequence = ? WHERE chain = ? AND sequence = -1`, m.entries[i+1].Sequence, entry.Chain)
				})
				renumbered := func() {
					remove()
					m.exec(m.t, `UPDATE ledger_entries SET sequence = sequence - 1 WHERE chain = ? AND sequence > ?`, entry.Chain, entry.Sequence)
				}
				m.findAt("remove and renumber", entry, renumbered)
			}
			m.find("exact duplicate", func() { m.add(entry) })
			m.findForgedCopies(entry)
		}
	})
}

// findForgedCopies adds copies of an entry at the end of chains, with a valid
// place and hash.
func (m *tampered) findForgedCopies(entry ledgerentry.Entry) {
	for _, head := range m.anchor.Heads {
		copied := entry
		copied.Chain, copied.Sequence, copied.PreviousHash = head.Chain, head.Sequence+1, head.Hash
		copied = m.rehashed(copied)
		m.find("forged copy", func() { m.add(copied) })
		inserted := m.rehashed(func() ledgerentry.Entry { e := copied; e.Sequence = 1; e.PreviousHash = ""; return e }())
		m.find("forged first entry", func() {
			m.exec(m.t, `UPDATE ledger_entries SET sequence = sequence + 1 WHERE chain = ?`, head.Chain)
			m.add(inserted)
		})
	}
}

func TestVerifyFindsSwappedAndRemovedChains(t *testing.T) {
	onTampered(t, func(m *tampered) {
		for _, one := range m.anchor.Heads {
			m.findOnlyWithAnchor("remove a chain", one.Chain, func() { m.exec(m.t, `DELETE FROM ledger_entries WHERE chain = ?`, one.Chain) })
			m.find("rename a chain", func() { m.exec(m.t, `UPDATE ledger_entries SET chain = 'a:b:c' WHERE chain = ?`, one.Chain) })
			for _, other := range m.anchor.Heads {
				if one == other {
					continue
				}
				faults := m.find("swap chains", func() {
					m.exec(m.t, `UPDATE ledger_entries SET chain = CASE chain WHEN ? THEN ? ELSE ? END WHERE chain IN (?, ?)`,
						one.Chain, other.Chain, one.Chain, one.Chain, other.Chain)
				})
				assert.Contains(m.t, faults, one.Chain)
				assert.Contains(m.t, faults, other.Chain)
				m.find("merge chains", func() {
					m.exec(m.t, `UPDATE ledger_entries SET chain = ? WHERE chain = ?`, one.Chain, other.Chain)
				})
			}
		}
		m.findOnlyWithAnchorAll("remove everything", func() { m.exec(m.t, `DELETE FROM ledger_entries`) })
	})
}

func (m *tampered) findOnlyWithAnchorAll(name string, mutate func()) {
	mutate()
	defer m.restore()
	assert.Empty(m.t, m.verify().Faults, name)
	assert.Len(m.t, verify(m.t, m.ledger, VerifyOptions{Anchor: &m.anchor}).Faults, len(m.anchor.Heads), name)
	m.found++
}

// A forger rewrites a whole chain, with valid hashes and links.
func TestVerifyFindsAChainWrittenAnew(t *testing.T) {
	onTampered(t, func(m *tampered) {
		for _, head := range m.anchor.Heads {
			for _, dropSignature := range []bool{false, true} {
				rewrite := func() {
					previous := ""
					for _, entry := range m.entries {
						if entry.Chain != head.Chain {
							continue
						}
						forged := entry
						forged.RequestedBy, forged.PreviousHash = "mallory", previous
						if dropSignature {
							forged.SigningKeyID, forged.Signature = "", ""
						}
						forged = m.rehashed(forged)
						m.replace(entry, forged)
						previous = forged.Hash
					}
				}
				if m.keys == nil {
					m.findOnlyWithAnchor("rewrite", head.Chain, rewrite)
					continue
				}
				fault := m.find("rewrite", rewrite)[head.Chain]
				assert.Equal(m.t, ReasonSignature, fault.Reason)
				assert.EqualValues(m.t, 1, fault.Sequence)
			}
		}
	})
}

func TestVerifySignatures(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, s *store) {
		appendAll(t, s.open(t), rotation(ordersID, "orders", 1))
		first := s.sign(t)
		ledger := s.open(t)
		appendAll(t, ledger, rotation(ordersID, "orders", 2))
		// The key is replaced while the ledger is open.
		oldFile := s.options.SigningKeyFile
		second := s.sign(t)
		require.NoError(t, os.Rename(s.options.SigningKeyFile, oldFile))
		appendAll(t, ledger, rotation(ordersID, "orders", 3))
		both := maps.Clone(first)
		maps.Copy(both, second)

		requireIntact(t, ledger, VerifyOptions{PublicKeys: both, AllowUnsigned: true}, 3, 1)
		for _, c := range []struct {
			options  VerifyOptions
			sequence int64
			detail   string
		}{
			{VerifyOptions{PublicKeys: both}, 1, "not signed"},
			{VerifyOptions{PublicKeys: second, AllowUnsigned: true}, 2, "unknown key"},
			{VerifyOptions{PublicKeys: first, AllowUnsigned: true}, 3, "unknown key"},
		} {
			result := verify(t, ledger, c.options)
			require.Len(t, result.Faults, 1)
			assert.Equal(t, c.sequence, result.Faults[0].Sequence)
			assert.Contains(t, result.Faults[0].Detail, c.detail)
		}
		unchecked := verify(t, ledger, VerifyOptions{})
		assert.True(t, unchecked.Intact())
		assert.False(t, unchecked.SignaturesChecked)
		assert.Equal(t, []int{2, 1}, []int{unchecked.Signed, unchecked.Unsigned})

		s.options.SigningKeyFile = ""
		appendAll(t, s.open(t), rotation(ordersID, "orders", 4))
		result := verify(t, ledger, VerifyOptions{})
		require.Len(t, result.Faults, 1)
		assert.Contains(t, result.Faults[0].Detail, "entries before it are")
	})
}

// What SQLite accepts in a column and JSON does not distinguish.
func TestVerifyFindsAnotherTypeAndEncoding(t *testing.T) {
	s := sqliteStore(t)
	record := rotation(ordersID, "orders", 1)
	record.Ticket = "CHG\ufffd"
	appendAll(t, s.open(t), record)
	s.exec(t, `CREATE TABLE loose AS SELECT * FROM ledger_entries`)
	s.exec(t, `ALTER TABLE ledger_entries RENAME TO original`)
	s.exec(t, `ALTER TABLE loose RENAME TO ledger_entries`)
	m := &tampered{store: s, t: t, ledger: s.open(t)}
	m.entries = m.read()
	entry := m.entries[0]
	m.findAt("invalid UTF-8", entry, func() { m.set(entry, "ticket", "CHG\xff") })
	for _, column := range columns[3:] {
		m.findAt("BLOB in "+column, entry, func() { m.exec(t, `UPDATE ledger_entries SET `+column+` = CAST(`+column+` AS BLOB)`) })
	}
	m.find("REAL", func() { m.exec(t, `UPDATE ledger_entries SET version = 1.5`) })
	m.find("BLOB in chain", func() { m.exec(t, `UPDATE ledger_entries SET chain = CAST(chain AS BLOB)`) })
	m.find("BLOB in sequence", func() { m.exec(t, `UPDATE ledger_entries SET sequence = CAST('1' AS BLOB)`) })
}

func TestVerifyReportsANewerEntry(t *testing.T) {
	s := sqliteStore(t)
	m := newTampered(t, s, false)
	newer := m.entries[0]
	newer.Version = ledgerentry.CurrentVersion + 1
	faults := m.find("version", func() { m.replace(newer, m.rehashed(newer)) })
	assert.Equal(t, ReasonUnknownVersion, faults[newer.Chain].Reason)
}

func TestAnchor(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, s *store) {
		ledger := s.open(t)
		empty, err := ledger.Anchor(t.Context())
		require.NoError(t, err)
		assert.Empty(t, empty.Heads)
		entries := appendAll(t, ledger, rotation(usersID, "users", 1), rotation(ordersID, "orders", 1), rotation(ordersID, "orders", 2))
		anchor, err := ledger.Anchor(t.Context())
		require.NoError(t, err)
		assert.Equal(t, []Head{
			{Chain: entries[2].Chain, Sequence: 2, Hash: entries[2].Hash}, {Chain: entries[0].Chain, Sequence: 1, Hash: entries[0].Hash},
		}, anchor.Heads)
		text, err := json.Marshal(anchor)
		require.NoError(t, err)
		read, err := ReadAnchor(strings.NewReader(string(text)))
		require.NoError(t, err)
		assert.Equal(t, anchor, read)
		// What was appended since does not contradict an anchor.
		appendAll(t, ledger, rotation(ordersID, "orders", 3))
		for _, anchor := range []Anchor{empty, read} {
			requireIntact(t, ledger, VerifyOptions{Anchor: &anchor}, 4, 2)
		}
	})
	for _, text := range []string{
		``, `{}`, `[]`, `{"heads":[]}`, `{"takenAt":"2026-01-01T00:00:00Z"}`, `{"takenAt":"2026-01-01T00:00:00Z","heads":[],"more":1}`,
		`{"takenAt":"2026-01-01T00:00:00Z","heads":[{"chain":"a","sequence":1,"hash":"abc"}]}`, `{"takenAt":"2026-01-01T00:00:00Z","heads":[]} x`,
		fmt.Sprintf(`{"takenAt":"2026-01-01T00:00:00Z","heads":[{"chain":"a","sequence":0,"hash":"%064d"}]}`, 0),
		fmt.Sprintf(`{"takenAt":"2026-01-01T00:00:00Z","heads":[{"chain":"a","sequence":1,"hash":"%064d"},{"chain":"a","sequence":1,"hash":"%064d"}]}`, 0, 0),
	} {
		_, err := ReadAnchor(strings.NewReader(text))
		assert.Error(t, err, text)
	}
}
