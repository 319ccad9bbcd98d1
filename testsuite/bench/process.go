package main

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"keyturn/testsuite/support/childproc"
)

// peakMemory is the maximum resident set of a running process, in bytes; 0 if
// the system does not report it. /proc is preferred to rusage: on Linux, a
// child's rusage includes the memory of its parent at the start of the child.
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

// peakMemoryOfEnded is peakMemory for a process that has ended.
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

// stopAndMeasureMemory stops idle workers and returns the maximum memory of one
// of them.
func stopAndMeasureMemory(workers []*childproc.Child) (most uint64) {
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

// cpuTimes is the CPU time used so far; nil if the system does not report it.
type cpuTimes struct{ server, workers, self *float64 }

func (s *target) cpuTimes() cpuTimes {
	return cpuTimes{
		server:  sumOfCPU(s.harness.server.PID()),
		workers: sumOfCPU(pidsOf(s.workers)...),
		self:    cpuOfSelf(),
	}
}

func pidsOf(workers []*childproc.Child) (pids []int) {
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

// cpuOfSelf is the CPU time of this process, mainly of the simulated Ops
// Manager.
func cpuOfSelf() *float64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return nil
	}
	seconds := time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
	return &seconds
}

// cores is the average number of busy cores since an earlier time.
func cores(now, earlier *float64, took time.Duration) *float64 {
	if now == nil || earlier == nil {
		return nil
	}
	busy := (*now - *earlier) / took.Seconds()
	return &busy
}
