package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	// markdownLink is a link to a file of the repository or to a heading.
	markdownLink = regexp.MustCompile(`\]\(([^():\s]+)\)`)
	// namedPath is a path in backticks that begins at the repository's root.
	namedPath = regexp.MustCompile("`((?:activities|deploy|docs|internal|opsmanager|starter|testsuite|tools|worker|workflows)/[A-Za-z0-9_./-]*)`")
	codeBlock = regexp.MustCompile("(?ms)^```.*?^```$")
	heading   = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// TestLinksAndPathsInTheDocumentationExist keeps moved files and headings from
// leaving dead ends.
func TestLinksAndPathsInTheDocumentationExist(t *testing.T) {
	links := 0
	for _, page := range pages(t) {
		text := codeBlock.ReplaceAllString(readPage(t, page), "")
		for _, found := range markdownLink.FindAllStringSubmatch(text, -1) {
			links++
			path, anchor, _ := strings.Cut(found[1], "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			_, err := os.Stat(target)
			if assert.NoError(t, err, "%s links to %s", page, found[1]) && anchor != "" {
				assert.Contains(t, anchorsOf(readPage(t, target)), anchor, "%s links to %s", page, found[1])
			}
		}
		if filepath.Base(page) == "CHANGELOG.md" { // it names files as they were
			continue
		}
		for _, found := range namedPath.FindAllStringSubmatch(text, -1) {
			_, err := os.Stat(filepath.Join(root, found[1]))
			assert.NoError(t, err, "%s names %s", page, found[1])
		}
	}
	require.NotZero(t, links)
}

var root = filepath.Join("..", "..")

// pages are the pages of the documentation.
func pages(t *testing.T) (found []string) {
	t.Helper()
	for _, folder := range []string{"", "docs"} {
		more, err := filepath.Glob(filepath.Join(root, folder, "*.md"))
		require.NoError(t, err)
		require.NotEmpty(t, more)
		found = append(found, more...)
	}
	return found
}

func readPage(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

var notInAnchors = regexp.MustCompile(`[^\p{L}\p{N} _-]`)

// anchorsOf are the headings' anchors, as GitHub makes them.
func anchorsOf(page string) (anchors []string) {
	for _, found := range heading.FindAllStringSubmatch(codeBlock.ReplaceAllString(page, ""), -1) {
		text := notInAnchors.ReplaceAllString(strings.ToLower(found[1]), "")
		anchors = append(anchors, strings.ReplaceAll(text, " ", "-"))
	}
	return anchors
}
