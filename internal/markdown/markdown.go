// Package markdown writes texts of other people into Markdown.
package markdown

import (
	"strings"
	"unicode/utf8"
)

// Escape shows a text as it is: names and reasons come from other people, and must
// not become markup, links, images, HTML or further lines. It leaves | alone; see
// [Cell].
func Escape(untrusted string) string { return escapes.Replace(untrusted) }

// Cell is Escape for a table, which | would divide.
func Cell(untrusted string) string { return strings.ReplaceAll(Escape(untrusted), "|", `\|`) }

// longestWord is how many characters of a word a narrow page has room for.
const longestWord = 36

// Sentence is Cell for a text that may have long words, such as addresses: it lets a
// page break them after a slash, and where there is none for long.
func Sentence(untrusted string) string {
	words := strings.Split(Cell(untrusted), " ")
	for i, word := range words {
		if utf8.RuneCountInString(word) > longestWord {
			words[i] = breakable(word)
		}
	}
	return strings.Join(words, " ")
}

func breakable(word string) string {
	const zeroWidthSpace = "\u200b"
	var b strings.Builder
	unbroken, before, isEntity := 0, ' ', false
	for _, r := range word {
		isEscape := isEntity || before == '\\' // such as &amp; or \|
		if before == '/' || unbroken >= longestWord && !isEscape {
			b.WriteString(zeroWidthSpace)
			unbroken = 0
		}
		b.WriteRune(r)
		isEntity = r == '&' || isEntity && r != ';'
		unbroken, before = unbroken+1, r
	}
	return b.String()
}

var escapes = strings.NewReplacer(
	"\\", `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "~", `\~`, "[", `\[`, "]", `\]`,
	"&", "&amp;", "<", "&lt;", ">", "&gt;", "://", `:\//`, "www.", `www\.`, "@", `\@`,
	"\r\n", " ", "\n", " ", "\r", " ", "\u2028", " ", "\u2029", " ",
)
