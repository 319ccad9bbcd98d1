package ledgerentry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// RFC 8785, section 3.2.2 and 3.2.3, and appendix B.
func TestCanonicalizeFollowsTheStandardsExamples(t *testing.T) {
	for input, want := range map[string]string{
		`{
			"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
			"string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
			"literals": [null, true, false]
		}`: `{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
		`{"\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One",
		  "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"}`: `{"\r":"Carriage Return","1":"One","` + "\u0080" +
			`":"Control","ö":"Latin Small Letter O With Diaeresis","€":"Euro Sign","😀":"Emoji: Grinning Face","` + "\ufb33" + `":"Hebrew Letter Dalet With Dagesh"}`,
	} {
		canonical, err := Canonicalize([]byte(input))
		require.NoError(t, err)
		assert.Equal(t, want, string(canonical))
	}
	for bits, want := range map[uint64]string{
		0x0000000000000000: "0", 0x8000000000000000: "0", 0x0000000000000001: "5e-324", 0x8000000000000001: "-5e-324",
		0x7fefffffffffffff: "1.7976931348623157e+308", 0xffefffffffffffff: "-1.7976931348623157e+308",
		0x4340000000000000: "9007199254740992", 0xc340000000000000: "-9007199254740992", 0x4430000000000000: "295147905179352830000",
		0x44b52d02c7e14af5: "9.999999999999997e+22", 0x44b52d02c7e14af6: "1e+23", 0x44b52d02c7e14af7: "1.0000000000000001e+23",
		0x444b1ae4d6e2ef4e: "999999999999999700000", 0x444b1ae4d6e2ef4f: "999999999999999900000", 0x444b1ae4d6e2ef50: "1e+21",
		0x3eb0c6f7a0b5ed8c: "9.999999999999997e-7", 0x3eb0c6f7a0b5ed8d: "0.000001",
		0x41b3de4355555553: "333333333.3333332", 0x41b3de4355555554: "333333333.33333325", 0x41b3de4355555555: "333333333.3333333",
		0x41b3de4355555556: "333333333.3333334", 0x41b3de4355555557: "333333333.33333343",
		0xbecbf647612f3696: "-0.0000033333333333333333", 0x43143ff3c1cb0959: "1424953923781206.2",
	} {
		for _, format := range []byte("efg") {
			number := strconv.FormatFloat(math.Float64frombits(bits), format, 17, 64)
			if format == 'f' {
				number = strconv.FormatFloat(math.Float64frombits(bits), format, -1, 64)
			}
			canonical, err := Canonicalize([]byte(number))
			require.NoError(t, err)
			assert.Equal(t, want, string(canonical), "%x as %s", bits, number)
		}
	}
}

func TestCanonicalizeRefusesWhatHasNoCanonicalForm(t *testing.T) {
	for _, text := range []string{
		``, `{`, `[1,]`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `"\ud800"`, `"\ud800\u0041"`, `"\udc00"`, "\"\xff\"", `NaN`, `Infinity`,
		`01`, `+1`, `.5`, `1.`, `0x10`, `1_000`, `"a" "b"`, "\"\x01\"", "\ufeff1", "[1,\u00a02]", strings.Repeat("[", 5_000_000),
	} {
		canonical, err := Canonicalize([]byte(text))
		assert.Error(t, err, "%.40q became %q", text, canonical)
	}
}

// FuzzCanonicalize compares with a second implementation, and checks what makes
// a canonical form.
func FuzzCanonicalize(f *testing.F) {
	for _, seed := range []string{
		`{"b":[1,2.50,-0,1e21,1e-7],"a":{"\u20ac":"\ud83d\ude00","\ufb33":null,"😀":true}}`, `"\u2028<>&\/\u0000\u001f\u007f\b\f"`, `[]`, `{}`,
		`{"a":1,"a":1}`, `9007199254740993`, `5e-324`, `123456789012345680000`, `"\ud800"`, ` [ 1 , 2 ] `,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		canonical, err := Canonicalize(text)
		if err != nil {
			return
		}
		var value, again any
		require.NoError(t, json.Unmarshal(text, &value))
		require.NoError(t, json.Unmarshal(canonical, &again))
		require.Equal(t, value, again, "the value stays")
		require.Equal(t, reference(value), string(canonical))
		twice, err := Canonicalize(canonical)
		require.NoError(t, err)
		require.Equal(t, string(canonical), string(twice))
		var indented bytes.Buffer
		require.NoError(t, json.Indent(&indented, text, " ", "\t"))
		respelled, err := Canonicalize(indented.Bytes())
		require.NoError(t, err)
		require.Equal(t, string(canonical), string(respelled))
	})
}

// reference is the canonical form of a decoded value. encoding/json writes
// numbers as ECMAScript does.
func reference(value any) string {
	switch value := value.(type) {
	case map[string]any:
		keys := make([]string, 0, len(value))
		for key := range value {
			keys = append(keys, key)
		}
		slices.SortFunc(keys, func(a, b string) int { return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b))) })
		members := make([]string, len(keys))
		for i, key := range keys {
			members[i] = reference(key) + ":" + reference(value[key])
		}
		return "{" + strings.Join(members, ",") + "}"
	case []any:
		elements := make([]string, len(value))
		for i, element := range value {
			elements[i] = reference(element)
		}
		return "[" + strings.Join(elements, ",") + "]"
	case string:
		return referenceString(value)
	case float64:
		if value == 0 {
			return "0" // also -0
		}
		text, _ := json.Marshal(value)
		return string(text)
	default:
		return fmt.Sprint(map[any]string{nil: "null", true: "true", false: "false"}[value])
	}
}

func referenceString(text string) string {
	short := map[rune]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\t': `\t`, '\n': `\n`, '\f': `\f`, '\r': `\r`}
	var quoted strings.Builder
	for _, char := range text {
		switch escape, found := short[char]; {
		case found:
			quoted.WriteString(escape)
		case char < 0x20:
			fmt.Fprintf(&quoted, `\u%04x`, char)
		default:
			quoted.WriteRune(char)
		}
	}
	return `"` + quoted.String() + `"`
}
