package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"golang.org/x/sync/errgroup"

	"keyturn/testsuite/simulator"
)

// The load of -workers: clusters that are rotated in parallel.
const (
	maxWorkers       = 16
	loadClusters     = 16
	loadTargets      = 16 // of each
	loadConcurrency  = 8  // of each
	warmUpsPerWorker = 4
	maxBusy          = 0.9 // of the cores; above it they are the bottleneck
	loadInFlight     = loadClusters * loadConcurrency
)

// workersRow is the result for one number of workers.
type workersRow struct {
	Workers          int    `json:"workers"`
	TargetsPerSecond spread `json:"targetsPerSecond"`
	// Average number of busy cores for each part, in the run with the median
	// time; nil if the system does not report it.
	ServerCores      *float64 `json:"serverCores"`
	WorkerCores      *float64 `json:"workerCores"` // of all workers
	OpsManagerCores  *float64 `json:"opsManagerCores"`
	PeakMemory       uint64   `json:"peakMemory"` // of the biggest
	PeakInFlight     int      `json:"peakInFlight"`
	CoresAreTheLimit bool     `json:"coresAreTheLimit"`
}

// workersReport is the report for all numbers of workers.
type workersReport struct {
	Machine        machine      `json:"machine"`
	LatencySeconds float64      `json:"latencySeconds"`
	Repeat         int          `json:"repeat"`
	Rows           []workersRow `json:"workers"`
}

// runWorkers measures the same load with each number of workers.
func (r *harness) runWorkers(ctx context.Context, s settings, stdout io.Writer) (err error) {
	report := workersReport{LatencySeconds: s.latency.Seconds(), Repeat: s.repeat}
	if report.Machine, err = r.machine(ctx); err != nil {
		return err
	}
	for _, workers := range s.workers {
		row, err := r.share(ctx, workers, s)
		if err != nil {
			return fmt.Errorf("%d workers: %w", workers, err)
		}
		row.CoresAreTheLimit = row.busy() > maxBusy*float64(report.Machine.Cores)
		report.Rows = append(report.Rows, row)
	}
	if s.output == outputJSON {
		return writeJSON(stdout, report)
	}
	_, err = io.WriteString(stdout, report.text())
	return err
}

// share measures one number of workers, which share the load.
func (r *harness) share(ctx context.Context, workers int, s settings) (row workersRow, err error) {
	r.progressf("%d workers, %d times", workers, s.repeat)
	var small, big []cluster
	at, err := r.newTarget(ctx, s.latency, workers, 0, func(om *simulator.Server) {
		for i := range warmUpsPerWorker * workers {
			small = append(small, addCluster(om, project, fmt.Sprintf("warmup%d", i), warmUpTargets))
		}
		for i := range loadClusters {
			big = append(big, addCluster(om, project, fmt.Sprintf("orders%d", i), loadTargets))
		}
	})
	if err != nil {
		return row, err
	}
	defer at.close()
	ctx, stop := at.whileWorkersRun(ctx)
	defer stop()
	if row, err = at.share(ctx, small, big, s.repeat); err != nil {
		return row, at.withWorkerLogs(err)
	}
	stop()
	row.Workers, row.PeakMemory = workers, stopAndMeasureMemory(at.workers)
	return row, nil
}

// sharedRun is one run of the whole load.
type sharedRun struct {
	targets               int
	seconds               float64
	server, workers, self *float64 // cores
	requests              requestCounts
}

func (s *target) share(ctx context.Context, small, big []cluster, repeat int) (row workersRow, err error) {
	if err := s.rotateAll(ctx, small); err != nil {
		return row, fmt.Errorf("warming up: %w", err)
	}
	var runs []sharedRun
	var seconds, speeds []float64
	for range repeat {
		one, err := s.shareOnce(ctx, big)
		if err != nil {
			return row, err
		}
		runs = append(runs, one)
		seconds = append(seconds, one.seconds)
		speeds = append(speeds, float64(one.targets)/one.seconds)
	}
	middle := runs[middleOf(seconds)]
	return workersRow{
		TargetsPerSecond: spreadOf(speeds), PeakInFlight: middle.requests.PeakInFlight,
		ServerCores: middle.server, WorkerCores: middle.workers, OpsManagerCores: middle.self,
	}, nil
}

func (s *target) shareOnce(ctx context.Context, big []cluster) (one sharedRun, err error) {
	s.om.ResetLedger()
	before, startedAt := s.cpuTimes(), time.Now()
	if err := s.rotateAll(ctx, big); err != nil {
		return one, err
	}
	took, after := time.Since(startedAt), s.cpuTimes()
	var targets []string
	for _, c := range big {
		targets = append(targets, c.targets...)
	}
	one = sharedRun{
		targets: len(targets), seconds: took.Seconds(),
		server: cores(after.server, before.server, took), workers: cores(after.workers, before.workers, took), self: cores(after.self, before.self, took),
	}
	one.requests, err = countRequests(s.om.Ledger(), targets, loadInFlight)
	return one, err
}

// rotateAll rotates clusters in parallel.
func (s *target) rotateAll(ctx context.Context, clusters []cluster) error {
	rotations, ctx := errgroup.WithContext(ctx)
	for _, c := range clusters {
		rotations.Go(func() error {
			started, err := s.start(ctx, c, min(loadConcurrency, len(c.targets)))
			if err != nil {
				return causeOf(ctx, err)
			}
			_, err = s.await(ctx, c, started)
			return err
		})
	}
	return rotations.Wait()
}

// busy is the number of busy cores, as far as the system reports it.
func (row workersRow) busy() (sum float64) {
	for _, part := range []*float64{row.ServerCores, row.WorkerCores, row.OpsManagerCores} {
		if part != nil {
			sum += *part
		}
	}
	return sum
}

func (w workersReport) text() string {
	t := newTable("workers", "targets per second", "relative to the first", "Temporal server", "workers", "simulated Ops Manager", "total", "peak memory of one worker", "peak in flight")
	limited := false
	for _, row := range w.Rows {
		speed := row.TargetsPerSecond
		t.AppendRow(table.Row{
			row.Workers, fmt.Sprintf("%.0f (%.0f-%.0f)", speed.Median, speed.Min, speed.Max),
			fmt.Sprintf("%.2f", speed.Median/w.Rows[0].TargetsPerSecond.Median),
			coresText(row.ServerCores), coresText(row.WorkerCores), coresText(row.OpsManagerCores), fmt.Sprintf("%.2f", row.busy()),
			megabytes(row.PeakMemory), row.PeakInFlight,
		})
		limited = limited || row.CoresAreTheLimit
	}
	var b strings.Builder
	fmt.Fprintf(&b, "keyturn with more workers: %s\n\n%s\n\n", w.Machine, t.Render())
	fmt.Fprintf(&b, `%d clusters of %d targets in parallel, concurrency %d; %.0f ms per request; median, minimum and maximum of
%d runs. The columns of the parts show the busy cores, of %d.
`, loadClusters, loadTargets, loadConcurrency, w.LatencySeconds*1000, w.Repeat, w.Machine.Cores)
	if limited {
		fmt.Fprintf(&b, "The cores of this machine are the bottleneck: the server and the workers share them, so more workers do not help.\n")
	}
	return b.String()
}

func coresText(busy *float64) string {
	if busy == nil {
		return none
	}
	return fmt.Sprintf("%.2f", *busy)
}
