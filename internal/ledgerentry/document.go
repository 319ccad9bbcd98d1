package ledgerentry

import (
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// CanonicalStrings is the canonical JSON of a list, as Canonicalize makes it. It fails
// if a text is not UTF-8.
func CanonicalStrings(list []string) (string, error) {
	if list == nil {
		return "null", nil
	}
	d := documentWriter{}
	d.open('[')
	for _, text := range list {
		d.separate()
		d.quote(text)
	}
	return string(d.close(']')), d.err
}

// CanonicalClusters is the same of clusters.
func CanonicalClusters(list []Cluster) (string, error) {
	if list == nil {
		return "null", nil
	}
	d := documentWriter{}
	d.open('[')
	for _, cluster := range list {
		d.separate()
		d.open('{')
		d.string("id", cluster.ID)
		d.string("name", cluster.Name)
		d.close('}')
	}
	return string(d.close(']')), d.err
}

// documentWriter writes canonical JSON, several times faster than Canonicalize. It
// gets members in the order of their names, and keeps the first error.
type documentWriter struct {
	text []byte
	// isFirst: nothing stands before the next member or element.
	isFirst bool
	err     error
}

func (d *documentWriter) open(bracket byte) {
	d.text, d.isFirst = append(d.text, bracket), true
}

func (d *documentWriter) close(bracket byte) []byte {
	d.text, d.isFirst = append(d.text, bracket), false
	return d.text
}

func (d *documentWriter) separate() {
	if !d.isFirst {
		d.text = append(d.text, ',')
	}
	d.isFirst = false
}

func (d *documentWriter) quote(text string) {
	var err error
	d.text, err = jsontext.AppendQuote(d.text, text)
	d.keep(err)
}

func (d *documentWriter) keep(err error) {
	if d.err == nil {
		d.err = err
	}
}

func (d *documentWriter) name(name string) {
	d.separate()
	d.quote(name)
	d.text = append(d.text, ':')
}

func (d *documentWriter) string(name, value string) {
	d.name(name)
	d.quote(value)
}

func (d *documentWriter) integer(name string, value int64) {
	d.name(name)
	d.text = strconv.AppendInt(d.text, value, 10)
}

// time is spelled as encoding/json does.
func (d *documentWriter) time(name string, value time.Time) {
	d.string(name, value.Format(time.RFC3339Nano))
}

// canonical writes a value that is canonical JSON.
func (d *documentWriter) canonical(name, value string, err error) {
	d.keep(err)
	d.name(name)
	d.text = append(d.text, value...)
}
