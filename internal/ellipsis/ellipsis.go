// Package ellipsis shortens texts.
package ellipsis

import "unicode/utf8"

// Character is the last character of a text that was cut.
const Character = "…"

// Cut cuts a text after limit characters, the last of which shows that.
func Cut(text string, limit int) string {
	end := 0 // of the text without its last character
	for at, n := 0, 0; at < len(text); n++ {
		if n == limit && limit == 0 {
			return ""
		}
		if n == limit {
			return text[:end] + Character
		}
		_, size := utf8.DecodeRuneInString(text[at:])
		end, at = at, at+size
	}
	return text
}
