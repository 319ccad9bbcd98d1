package workflows

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Temporal's Web UI shows summaries as Markdown, its command line as they are.
func TestSummariesHaveNoLinks(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"orders_0[1] *blue*":        "orders_0[1] *blue*",
		"[log in](https://evil)":    `\[log in\](https:\//evil)`,
		"![](https://evil/x.png)":   `!\[\](https:\//evil/x.png)`,
		"<a href=x>log in</a>":      "&lt;a href=x&gt;log in&lt;/a&gt;",
		"<https://evil.example.net": `&lt;https:\//evil.example.net`,
	} {
		assert.Equal(t, want, shorten(name))
	}
	assert.Contains(t, RotateFleetSummary(RotateFleetInput{Change: Change{Ticket: "[CHG](x)"}}), `(\[CHG\](x))`)
	assert.LessOrEqual(t, len(shorten(strings.Repeat("<\U0001F511", 256))), 400, "Temporal takes no more bytes")
}
