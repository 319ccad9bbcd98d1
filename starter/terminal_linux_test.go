package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// newTerminal is a pseudo-terminal of this width.
func newTerminal(t *testing.T, width uint16) *os.File {
	t.Helper()
	controller, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = controller.Close() })
	fd := int(controller.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	require.NoError(t, unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: 24}))
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = terminal.Close() })
	return terminal
}

func TestColorsOfATerminal(t *testing.T) {
	a, _, _ := newTestApp()
	terminal := newTerminal(t, 100)
	assert.Equal(t, layout{width: 100, colored: true}, a.layoutOf(terminal))
	a.env["NO_COLOR"] = "1"
	assert.Equal(t, layout{width: 100}, a.layoutOf(terminal))
	a.env = map[string]string{"TERM": "dumb"}
	assert.Equal(t, layout{}, a.layoutOf(terminal), "it is written to like a pipe")
	pipe, writer, err := os.Pipe()
	require.NoError(t, err)
	defer pipe.Close()
	defer writer.Close()
	assert.Equal(t, layout{}, a.layoutOf(writer))
	assert.Equal(t, narrowestLayout, (&app{env: nil}).layoutOf(newTerminal(t, 20)).width)
}
