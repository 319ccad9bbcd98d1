package workflows

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"go.temporal.io/sdk/converter"
)

// fieldErrors collects all that is wrong with an input, each with its field, so that
// a caller can fix it in one go.
type fieldErrors struct {
	texts  []string // the first maxErrors
	more   int      // those beyond
	fields map[string]bool
}

const (
	// maxErrorText bounds, in bytes, the faults that are reported: one in each
	// field that there is takes less than half of it.
	maxErrorText   = 3_500
	maxErrors      = 100   // beyond, they are only counted
	maxEntries     = 5_000 // of any list: a million of them, in 2 MB, take too long
	maxFieldQuoted = 60    // characters of an unknown field's name
)

func (f *fieldErrors) add(field, format string, args ...any) {
	if field == "" {
		field = "input"
	}
	if f.fields == nil {
		f.fields = map[string]bool{}
	}
	f.fields[field] = true
	if len(f.texts) >= maxErrors {
		f.more++
		return
	}
	f.texts = append(f.texts, field+": "+fmt.Sprintf(format, args...))
}

func (f fieldErrors) err() error {
	if f.none() {
		return nil
	}
	text, listed := f.texts[0], 1
	for _, fieldError := range f.texts[1:] {
		if len(text)+len(fieldError) > maxErrorText {
			break
		}
		text += "; " + fieldError
		listed++
	}
	if more := len(f.texts) - listed + f.more; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return failure(ErrorInvalidInput, nil, "%s", text)
}

func (f fieldErrors) none() bool { return len(f.texts) == 0 }

// has reports whether a field is known to be wrong.
func (f fieldErrors) has(field string) bool { return f.fields[field] }

// jsonOf gives a payload's JSON; no payload at all is an empty object.
func jsonOf(raw converter.RawValue) (json.RawMessage, error) {
	payload := raw.Payload()
	if payload == nil {
		return json.RawMessage("{}"), nil
	}
	switch encoding := string(payload.GetMetadata()[converter.MetadataEncoding]); encoding {
	case converter.MetadataEncodingJSON:
		return payload.GetData(), nil
	case converter.MetadataEncodingNil:
		return json.RawMessage("{}"), nil
	default:
		return nil, fmt.Errorf("must be a JSON object, but arrived with the encoding %.60q, which the worker cannot read, as it has no codec: send it without one (unset TEMPORAL_CODEC_ENDPOINT)", encoding)
	}
}

// decodeStrictly fills the struct that into points to. Unlike encoding/json it
// names every fault, refuses unknown and repeated fields, and takes names by
// their exact spelling; null is a field left out.
//
// workflowcheck distrusts reflection and encoding/json. What is decoded here is
// part of the history, into types that are fixed; the one map that is iterated
// over, in fieldsOf, only fills another map.
//
//workflowcheck:ignore
func decodeStrictly(raw converter.RawValue, into any, f *fieldErrors) (isJSON bool) {
	data, err := jsonOf(raw)
	if err != nil {
		f.add("", "%v", err)
		return false
	}
	if !json.Valid(data) {
		f.add("", "is not valid JSON")
		return false
	}
	decodeValue(data, reflect.ValueOf(into).Elem(), "", f)
	return true
}

func decodeValue(data json.RawMessage, into reflect.Value, path string, f *fieldErrors) {
	data = bytes.TrimSpace(data)
	if string(data) == "null" {
		return
	}
	if own, ok := into.Addr().Interface().(json.Unmarshaler); ok {
		if err := own.UnmarshalJSON(data); err != nil {
			f.add(path, "%s", expectation(into.Type()))
		}
		return
	}
	switch into.Kind() {
	case reflect.Struct:
		decodeObject(data, into, path, f)
	case reflect.Slice:
		decodeArray(data, into, path, f)
	case reflect.Pointer:
		value := reflect.New(into.Type().Elem())
		decodeValue(data, value.Elem(), path, f)
		into.Set(value)
	default:
		if err := json.Unmarshal(data, into.Addr().Interface()); err != nil {
			f.add(path, "%s", expectation(into.Type()))
		}
	}
}

func expectation(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Duration]():
		return `must be a duration, as a string such as "15m"`
	case t.Kind() == reflect.Int:
		return "must be a whole number"
	case t.Kind() == reflect.Bool:
		return "must be true or false"
	case t.Kind() == reflect.String:
		return "must be a string"
	default:
		return "must be a time in RFC 3339"
	}
}

func decodeArray(data json.RawMessage, into reflect.Value, path string, f *fieldErrors) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	if token, err := decoder.Token(); err != nil || token != json.Delim('[') {
		f.add(path, "must be a list")
		return
	}
	var items []json.RawMessage
	for decoder.More() {
		if len(items) == maxEntries {
			f.add(path, "must have at most %d entries", maxEntries)
			return
		}
		var item json.RawMessage
		if decoder.Decode(&item) != nil {
			return // the whole is valid JSON
		}
		items = append(items, item)
	}
	into.Set(reflect.MakeSlice(into.Type(), len(items), len(items)))
	for i, item := range items {
		decodeValue(item, into.Index(i), fmt.Sprintf("%s[%d]", path, i), f)
	}
}

func decodeObject(data json.RawMessage, into reflect.Value, path string, f *fieldErrors) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		f.add(path, "must be an object")
		return
	}
	fields := fieldsOf(into)
	seen := map[string]bool{}
	for decoder.More() {
		token, _ := decoder.Token() // the whole is valid JSON: this is a name
		name, _ := token.(string)
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return
		}
		field, known := fields[name]
		switch {
		case !known && len(f.texts) >= maxErrors:
			f.more++ // a large input may have very many
		case !known:
			f.add(join(path, fmt.Sprintf("%.*q", maxFieldQuoted, name)), "unknown field")
		case seen[name]:
			f.add(join(path, name), "duplicate field")
		default:
			seen[name] = true
			decodeValue(value, field, join(path, name), f)
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// fieldsOf finds a struct's fields by their JSON names, embedded ones included.
func fieldsOf(into reflect.Value) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	for i := range into.NumField() {
		field := into.Type().Field(i)
		if !field.IsExported() {
			continue
		}
		if field.Anonymous {
			for name, value := range fieldsOf(into.Field(i)) {
				fields[name] = value
			}
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		fields[name] = into.Field(i)
	}
	return fields
}

func indexed(list string, i int, name string) string { return fmt.Sprintf("%s[%d].%s", list, i, name) }

func element(list string, i int) string { return fmt.Sprintf("%s[%d]", list, i) }
