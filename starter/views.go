package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// lineView writes a line for each change, for logs and pipes.
type lineView struct {
	out     io.Writer
	now     func() time.Time
	before  account
	noticed string
}

func (v *lineView) show(now account) {
	for _, line := range now.changes(v.before) {
		v.say(line)
	}
	v.before = now
}

func (v *lineView) say(line string) {
	now := v.now()
	fmt.Fprintln(v.out, timeText(&now), line)
}

func (v *lineView) notice(text string) {
	if text != v.noticed {
		v.noticed = text
		v.say(clean(noticeOr(text)))
	}
}

// noticeOr says that a notice is withdrawn.
func noticeOr(text string) string {
	if text == "" {
		return "the progress is known again"
	}
	return text
}

func (v *lineView) tick()      {}
func (v *lineView) close(bool) {}

// noticesOnly shows nothing but what keeps the progress from being known.
type noticesOnly struct {
	out     io.Writer
	noticed string
}

func (v *noticesOnly) notice(text string) {
	if text != v.noticed && text != "" {
		fmt.Fprintln(v.out, clean(text))
	}
	v.noticed = text
}

func (v *noticesOnly) show(account) {}
func (v *noticesOnly) tick()        {}
func (v *noticesOnly) close(bool)   {}

// screen is a terminal.
type screen struct {
	out  io.Writer
	size func() size
}

// terminal gives the screen that out is, if it is one that can be drawn on.
func (a *app) terminal(out io.Writer) (screen, bool) {
	file, isFile := out.(*os.File)
	if !isFile || !term.IsTerminal(int(file.Fd())) || a.env["TERM"] == "dumb" {
		return screen{}, false
	}
	return screen{out: file, size: func() size { return sizeOf(file) }}, true
}

func sizeOf(file *os.File) size {
	width, height, err := term.GetSize(int(file.Fd()))
	if err != nil || width < 1 || height < 1 {
		return size{80, 24}
	}
	return size{width, height}
}

// liveView redraws a picture of the rotation in its place.
type liveView struct {
	screen screen
	now    func() time.Time
	scene  scene
	drawn  []string // the lines on the screen
}

const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	eraseBelow = "\x1b[J"
)

func newLiveView(on screen) *liveView {
	v := &liveView{screen: on, now: time.Now}
	fmt.Fprint(on.out, hideCursor)
	return v
}

func (v *liveView) show(now account) {
	v.scene.progress = now
	v.draw()
}

func (v *liveView) notice(text string) {
	if v.scene.notice != text {
		v.scene.notice = text
		v.draw()
	}
}

func (v *liveView) tick() { v.draw() }

// draw writes over what is drawn, line by line, so that nothing flickers.
func (v *liveView) draw() {
	v.scene.now = v.now()
	on := v.screen.size()
	lines := v.scene.lines(on)
	var b strings.Builder
	b.WriteString(v.toTop(on))
	for _, line := range lines {
		b.WriteString(line + text.EraseLine.Sprint() + "\n")
	}
	b.WriteString(eraseBelow)
	v.drawn = lines
	fmt.Fprint(v.screen.out, b.String())
}

// toTop moves the cursor to the first line drawn. On a screen that has become
// narrower since, a line takes several rows.
func (v *liveView) toTop(on size) string {
	rows := 0
	for _, line := range v.drawn {
		rows += max((text.StringWidthWithoutEscSequences(line)+on.width-1)/on.width, 1)
	}
	if rows == 0 {
		return ""
	}
	return text.CursorUp.Sprintn(min(rows, on.height)) + "\r"
}

func (v *liveView) close(erase bool) {
	if erase {
		fmt.Fprint(v.screen.out, v.toTop(v.screen.size())+eraseBelow)
	}
	fmt.Fprint(v.screen.out, showCursor)
}
