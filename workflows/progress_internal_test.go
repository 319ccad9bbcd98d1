package workflows

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

// Names and reasons of other people stay text in the Web UI.
func TestCellShowsForeignTextAsItIs(t *testing.T) {
	t.Parallel()
	for text, markdown := range map[string]string{
		"orders-0":                         "orders-0",
		"![x](https://example.net/x.png)":  `!\[x\](https:\//example.net/x.png)`,
		"<img src=x> & **bold** `code`":    "&lt;img src=x&gt; &amp; \\*\\*bold\\*\\* \\`code\\`",
		"a|b\nc_d~e\\":                     `a\|b c\_d\~e\\`,
		"www.example.net dana@example.net": `www\.example.net dana\@example.net`,
	} {
		assert.Equal(t, markdown, cell(text), text)
	}
}

// A page that is narrow breaks long words where they allow it.
func TestLongWordsOfSentencesCanBeBroken(t *testing.T) {
	t.Parallel()
	const path = "/api/public/v1.0/groups/5196d3628d022db4cbc26d9e/backupConfigs"
	for text, markdown := range map[string]string{
		"PUT " + path + ": 403":                          "PUT /\u200bapi/\u200bpublic/\u200bv1.0/\u200bgroups/\u200b5196d3628d022db4cbc26d9e/\u200bbackupConfigs: 403",
		"/short/words are left alone":                    "/short/words are left alone",
		strings.Repeat("a", 40):                          strings.Repeat("a", 36) + "\u200baaaa",
		strings.Repeat("a", 35) + "&" + "b_c":            strings.Repeat("a", 35) + "&amp;\u200bb\\_c",
		strings.Repeat("a", 35) + "|" + "b":              strings.Repeat("a", 35) + "\\|\u200bb",
		"5196d362-8d02-4db4-bc26-d9e5196d3628 is a UUID": "5196d362-8d02-4db4-bc26-d9e5196d3628 is a UUID",
	} {
		assert.Equal(t, markdown, sentence(text), text)
	}
}

// What stands in the tables of the current details is short: the page does not scroll
// to the right.
func TestCellsOfTheCurrentDetailsAreShort(t *testing.T) {
	t.Parallel()
	name := strings.Repeat("a-long-name-", 8)
	ref := ClusterRef{ProjectID: "5196d3628d022db4cbc26d9e", ClusterID: "5196e5b0e4b0fca9cc88334a", ClusterName: name}
	var b strings.Builder
	writeInProgress(&b, []FleetCluster{{ClusterRef: ref, WorkflowID: RotateClusterID("default", ref.ProjectID, ref.ClusterID)}})
	writeLeftOut(&b, &FleetProgress{RotateFleetResult: RotateFleetResult{LeftOut: []ClusterLeftOut{{ClusterRef: ref, Reason: LeftOutBusy}}}})
	for cell := range strings.SplitSeq(b.String(), "|") {
		for word := range strings.FieldsSeq(cell) {
			assert.LessOrEqual(t, utf8.RuneCountInString(word), maxCellName, word)
		}
	}
	assert.Contains(t, b.String(), "| 5196d3628d022db4cbc26d9e 5196e5b0e4b0fca9cc88334a |")
}
