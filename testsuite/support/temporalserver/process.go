package temporalserver

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// stopTime limits how long a server takes to stop: usually about a second.
	stopTime = 15 * time.Second
	// outputTime limits the wait for output after the end of the process.
	outputTime = 2 * time.Second
	// tailLines is the number of log lines shown in errors.
	tailLines = 30
)

// process is one process, from start to end.
type process struct {
	command *exec.Cmd
	tail    *tail
	ended   chan struct{} // closed when the process is gone
	err     error         // set before ended is closed
}

// startProcess starts a program that ends with this one.
func startProcess(path string, arguments, environment []string, output io.Writer) (*process, error) {
	p := &process{command: exec.Command(path, arguments...), tail: &tail{copy: output}, ended: make(chan struct{})}
	p.command.Env = environment
	p.command.Stdout, p.command.Stderr = p.tail, p.tail
	p.command.SysProcAttr = processAttributes()
	p.command.WaitDelay = outputTime
	started := make(chan error, 1)
	go p.run(started)
	return p, <-started
}

// run starts the process and waits for its end on one OS thread: Linux sends
// the parent-death signal when the thread that started the child ends, so that
// thread must live as long as the process.
func (p *process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.command.Start()
	started <- err
	if err == nil {
		p.err = p.command.Wait()
	}
	close(p.ended)
}

// stop sends SIGTERM, and SIGKILL after stopTime.
func (p *process) stop() {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopTime):
		p.kill()
	}
}

// kill sends SIGKILL and returns when the process is gone.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.ended
}

// signal does nothing if the process is gone.
func (p *process) signal(signal os.Signal) {
	_ = p.command.Process.Signal(signal)
}

func (p *process) isEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// tail keeps the last lines written to it, and copies everything to copy.
type tail struct {
	copy io.Writer // may be nil

	mutex sync.Mutex
	lines []string
	rest  string // incomplete line
}

// Write ignores errors of the copy: a log file that cannot be written must not
// affect the server.
func (t *tail) Write(text []byte) (int, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.copy != nil {
		_, _ = t.copy.Write(text)
	}
	lines := strings.Split(t.rest+string(text), "\n")
	t.rest = lines[len(lines)-1]
	t.lines = append(t.lines, lines[:len(lines)-1]...)
	if surplus := len(t.lines) - tailLines; surplus > 0 {
		t.lines = append([]string(nil), t.lines[surplus:]...)
	}
	return len(text), nil
}

// String returns the last lines, or a note if there are none.
func (t *tail) String() string {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	text := strings.TrimSpace(strings.Join(t.lines, "\n") + "\n" + t.rest)
	if text == "" {
		return "(the server wrote nothing)"
	}
	return text
}
