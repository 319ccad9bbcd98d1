package main

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"keyturn/testsuite/programs"
)

// peakMemory is the greatest resident set of a process that runs, in bytes; 0 =
// the system does not tell of a running one. It is taken from /proc and not from
// rusage where both are: Linux counts into a child's rusage what its parent had
// when it started it.
func peakMemory(pid int) uint64 {
	process, err := procfs.NewProc(pid)
	if err != nil {
		return 0
	}
	status, err := process.NewStatus()
	if err != nil {
		return 0
	}
	return status.VmHWM
}

// peakMemoryOfEnded is what peakMemory would be of a process that has ended.
func peakMemoryOfEnded(state *os.ProcessState) uint64 {
	usage, isUsage := state.SysUsage().(*syscall.Rusage)
	if !isUsage {
		return 0
	}
	if runtime.GOOS == "darwin" {
		return uint64(usage.Maxrss)
	}
	return uint64(usage.Maxrss) * 1024
}

// endAndWeigh ends workers, which have nothing left to do, and tells the greatest
// memory that one of them had.
func endAndWeigh(workers []*programs.Child) (most uint64) {
	for _, worker := range workers {
		memory := peakMemory(worker.PID())
		worker.Kill()
		if memory == 0 {
			memory = peakMemoryOfEnded(worker.State())
		}
		most = max(most, memory)
	}
	return most
}

// cpuTimes is what processes have used so far; nil = the system does not tell.
type cpuTimes struct{ server, workers, self *float64 }

func (s *site) cpuTimes() cpuTimes {
	return cpuTimes{
		server:  sumOfCPU(s.rig.server.PID()),
		workers: sumOfCPU(pidsOf(s.workers)...),
		self:    cpuOfSelf(),
	}
}

func pidsOf(workers []*programs.Child) (pids []int) {
	for _, worker := range workers {
		pids = append(pids, worker.PID())
	}
	return pids
}

func sumOfCPU(pids ...int) *float64 {
	var sum float64
	for _, pid := range pids {
		process, err := procfs.NewProc(pid)
		if err != nil {
			return nil
		}
		stat, err := process.Stat()
		if err != nil {
			return nil
		}
		sum += stat.CPUTime()
	}
	return &sum
}

// cpuOfSelf is that of this process: the simulated Ops Manager, above all.
func cpuOfSelf() *float64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return nil
	}
	seconds := time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
	return &seconds
}

// cores is how many cores were busy with it since an earlier time.
func cores(now, earlier *float64, took time.Duration) *float64 {
	if now == nil || earlier == nil {
		return nil
	}
	busy := (*now - *earlier) / took.Seconds()
	return &busy
}
