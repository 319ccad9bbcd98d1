package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// view shows a rotation while it runs. One goroutine calls its methods.
type view interface {
	show(statusView)
	// notice shows why the progress is not known; "" = it can be read again.
	notice(string)
	// tick is called about once a second.
	tick()
	// close ends the display; erase removes what the final table replaces.
	close(erase bool)
}

// newView returns the display that fits the output: when standard output is for
// a program, it goes to standard error.
func (a *app) newView() view {
	out := a.stdout
	if a.format != formatTable {
		out = a.stderr
	}
	if screen, found := a.terminal(out); found {
		return newLiveView(screen)
	}
	return &lineView{out: out, now: time.Now}
}

// lineView writes a line for each change, for logs and pipes.
type lineView struct {
	out     io.Writer
	now     func() time.Time
	before  statusView
	noticed string
}

func (v *lineView) show(now statusView) {
	for _, line := range now.changes(v.before) {
		v.println(line)
	}
	v.before = now
}

func (v *lineView) println(line string) {
	now := v.now()
	fmt.Fprintln(v.out, timeText(&now), line)
}

func (v *lineView) notice(text string) {
	if text != v.noticed {
		v.noticed = text
		v.println(cmp.Or(clean(text), "the progress can be read again"))
	}
}

func (v *lineView) tick()      {}
func (v *lineView) close(bool) {}

// noticeView shows only why the progress is not known.
type noticeView struct {
	out     io.Writer
	noticed string
}

func (v *noticeView) notice(text string) {
	if text != v.noticed && text != "" {
		fmt.Fprintln(v.out, clean(text))
	}
	v.noticed = text
}

func (v *noticeView) show(statusView) {}
func (v *noticeView) tick()           {}
func (v *noticeView) close(bool)      {}

// screen is a terminal.
type screen struct {
	out  io.Writer
	size func() size
	// colored: the user has not set NO_COLOR.
	colored bool
}

// terminal returns the screen behind out, if it is one that can be drawn on.
func (a *app) terminal(out io.Writer) (screen, bool) {
	file, isFile := out.(*os.File)
	if !isFile || !term.IsTerminal(int(file.Fd())) || a.env["TERM"] == "dumb" {
		return screen{}, false
	}
	return screen{out: file, size: func() size { return sizeOf(file) }, colored: a.env["NO_COLOR"] == ""}, true
}

func sizeOf(file *os.File) size {
	width, height, err := term.GetSize(int(file.Fd()))
	if err != nil || width < 1 || height < 1 {
		return size{80, 24}
	}
	return size{width, height}
}

// liveView redraws a picture of the rotation in place.
type liveView struct {
	screen screen
	now    func() time.Time
	frame  frame
	drawn  []string // the lines on the screen
}

const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	eraseBelow = "\x1b[J"
)

func newLiveView(on screen) *liveView {
	v := &liveView{screen: on, now: time.Now}
	v.frame.colored = on.colored
	fmt.Fprint(on.out, hideCursor)
	return v
}

func (v *liveView) show(now statusView) {
	v.frame.progress = now
	v.draw()
}

func (v *liveView) notice(text string) {
	if v.frame.notice != text {
		v.frame.notice = text
		v.draw()
	}
}

func (v *liveView) tick() { v.draw() }

// draw overwrites the last frame line by line, so that nothing flickers.
func (v *liveView) draw() {
	v.frame.now = v.now()
	on := v.screen.size()
	lines := v.frame.lines(on)
	var b strings.Builder
	b.WriteString(v.toTop(on))
	for _, line := range lines {
		b.WriteString(line + text.EraseLine.Sprint() + "\n")
	}
	b.WriteString(eraseBelow)
	v.drawn = lines
	fmt.Fprint(v.screen.out, b.String())
}

// toTop moves the cursor to the first line drawn. If the screen has become
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
