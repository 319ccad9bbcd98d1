// Package reload is how all settings that name files follow their files while a
// program runs.
package reload

import (
	"sync"
	"time"
)

// Interval is how old what was read of files may be when it is used.
const Interval = 15 * time.Second

// Options of a [Value].
type Options[T any] struct {
	// Load reads and checks the files. Required.
	Load func() (T, error)
	// Same reports whether the files have not changed. Required.
	Same func(before, now T) bool
	// Apply is called with what has changed, before it is in force. If it returns an
	// error, it never is. nil = nothing has to be done.
	Apply func(before, now T) error
	// Interval is the least time between two readings of [Value.Latest]; 0 = Interval.
	Interval time.Duration
}

// Value is what the files of some settings hold, as far as it can be used. The
// files are read as a whole, again and again, and not watched: that is cheap, and
// works with every way to replace a file (written in place, renamed, a symbolic link
// to another directory as in Kubernetes) and with every file system.
//
// Files that cannot be used, such as one that is half written or a certificate whose
// key is not replaced yet, change nothing: the earlier contents stay in force until
// they can. Its methods may be called concurrently.
type Value[T any] struct {
	options Options[T]

	mu      sync.Mutex
	readAt  time.Time
	current T
	changes int
	problem error
}

// New reads the files. Its error is that of [Options.Load].
func New[T any](options Options[T]) (*Value[T], error) {
	if options.Interval == 0 {
		options.Interval = Interval
	}
	v := &Value[T]{options: options, readAt: time.Now()}
	var err error
	if v.current, err = options.Load(); err != nil {
		return nil, err
	}
	return v, nil
}

// Latest returns what is in force. It reads the files again if the last reading is
// older than the interval.
func (v *Value[T]) Latest() T {
	v.mu.Lock()
	defer v.mu.Unlock()
	if time.Since(v.readAt) >= v.options.Interval {
		v.read()
	}
	return v.current
}

// Refresh reads the files now. It returns why their contents are not in force; nil =
// they are.
func (v *Value[T]) Refresh() (problem error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.read()
	return v.problem
}

// Changes is how often what is in force has changed.
func (v *Value[T]) Changes() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changes
}

// Problem is why, by the last reading, the files' contents are not in force; nil =
// they are.
func (v *Value[T]) Problem() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.problem
}

func (v *Value[T]) read() {
	v.readAt = time.Now()
	now, err := v.options.Load()
	if err == nil && !v.options.Same(v.current, now) {
		if v.options.Apply != nil {
			err = v.options.Apply(v.current, now)
		}
		if err == nil {
			v.current = now
			v.changes++
		}
	}
	v.problem = err
}
