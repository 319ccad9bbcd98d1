package ellipsis

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestCut(t *testing.T) {
	for _, test := range []struct {
		text  string
		limit int
		want  string
	}{
		{"", 0, ""}, {"a", 0, ""}, {"", 1, ""}, {"a", 1, "a"}, {"ab", 1, "…"}, {"ab", 2, "ab"}, {"abc", 2, "a…"},
		{"生命生命", 4, "生命生命"}, {"生命生命", 3, "生命…"}, {"a\xffb", 3, "a\xffb"}, {"a\xffbc", 3, "a\xff…"},
	} {
		assert.Equal(t, test.want, Cut(test.text, test.limit), "%q, %d", test.text, test.limit)
	}
}
