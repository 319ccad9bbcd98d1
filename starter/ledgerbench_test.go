package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keyturn/internal/ledger"
	"keyturn/workflows"
)

// go test ./starter -run '^$' -bench LedgerCommands -benchtime 1x -timeout 1h -ledger-entries 100000
var benchmarkEntries = flag.Int("ledger-entries", 2_000, "entries of the ledger that BenchmarkLedgerCommands reads")

const (
	benchmarkClusters = 500
	benchmarkTargets  = 4
	benchmarkQuarters = 8 // that the entries spread over
	quarter           = 91 * 24 * time.Hour
)

// BenchmarkLedgerCommands measures time, CPU time and the peak memory of the program itself,
// as a cron job or an auditor runs it. Evidence is of one quarter.
func BenchmarkLedgerCommands(b *testing.B) {
	signing, public := keyFiles(b)
	l := newTestLedger(b, ledger.Options{SigningKeyFile: signing})
	first := day("2024-01-01")
	for i := range *benchmarkEntries {
		ended := first.Add(benchmarkQuarters * quarter / time.Duration(*benchmarkEntries) * time.Duration(i))
		l.append(b, fmt.Sprintf("run-%d", i), benchmarkRotation(i, ended), nil, nil)
	}
	program := filepath.Join(b.TempDir(), programName)
	out, err := exec.CommandContext(b.Context(), "go", "build", "-o", program, "keyturn/starter").CombinedOutput()
	require.NoError(b, err, "%s", out)
	period := []string{"--since", first.Add(6 * quarter).Format(time.DateOnly), "--until", first.Add(7 * quarter).Format(time.DateOnly), "--older-than", "95d", "--public-keys", public}
	for name, arguments := range map[string][]string{
		"verify":        {"ledger", "verify", "--public-keys", public},
		"history":       {"history"},
		"ticket":        {"history", "--ticket", "CHG7"},
		"evidence-json": append([]string{"evidence", "-o", "json"}, period...),
		"evidence-html": append([]string{"evidence", "-o", "html"}, period...),
	} {
		b.Run(name, func(b *testing.B) {
			var total, last programRun
			for b.Loop() {
				last = l.measure(b, program, arguments)
				total.seconds, total.peak = total.seconds+last.seconds, max(total.peak, last.peak)
			}
			b.ReportMetric(total.seconds/float64(b.N), "cpu-s/op")
			b.ReportMetric(total.peak/(1<<10), "peak-MiB")
			b.ReportMetric(float64(last.written)/(1<<20), "output-MiB")
		})
	}
}

// programRun is what a run of the program has needed: seconds of CPU time, peak memory in
// KiB, and bytes written.
type programRun struct {
	seconds, peak float64
	written       int64
}

// measure runs the program with GNU time: what the kernel says of a child of this
// process includes this process's own memory.
func (l *testLedger) measure(b *testing.B, program string, arguments []string) (used programRun) {
	files := b.TempDir()
	output, err := os.Create(filepath.Join(files, "output"))
	require.NoError(b, err)
	defer func() { require.NoError(b, output.Close()) }()
	measured := filepath.Join(files, "measured")
	command := exec.CommandContext(b.Context(), "time", append([]string{"-f", "%U %S %M", "-o", measured, program}, arguments...)...)
	command.Env, command.Stdout, command.Stderr = append(os.Environ(), l.env...), output, os.Stderr
	require.NoError(b, command.Run())
	information, err := output.Stat()
	require.NoError(b, err)
	text, err := os.ReadFile(measured)
	require.NoError(b, err)
	var user, system float64
	_, err = fmt.Sscan(string(text), &user, &system, &used.peak)
	require.NoError(b, err)
	used.seconds, used.written = user+system, information.Size()
	return used
}

// benchmarkRotation is one of a sharded cluster, approved, with a ticket of its own.
func benchmarkRotation(i int, ended time.Time) workflows.RotateClusterResult {
	cluster := i % benchmarkClusters
	result := rotatedResult(fmt.Sprintf("%024x", cluster), fmt.Sprintf("cluster-%d", cluster), ended, "1")
	result.Change.Ticket = fmt.Sprintf("CHG%d", i)
	result.Approval = &workflows.Approval{By: "lee", At: result.StartedAt}
	result.Targets = nil
	for shard := range benchmarkTargets {
		record := verified(fmt.Sprintf("%02d", shard), fmt.Sprintf("cluster-%d-%d", cluster, shard), 0)
		record.RotatedAt, record.VerifiedAt = &ended, &ended
		record.PreviousKeyUUID, record.NewKeyUUID = benchmarkKey(i, shard), benchmarkKey(i+benchmarkClusters, shard)
		result.Targets = append(result.Targets, record)
	}
	return result
}

func benchmarkKey(i, shard int) string { return fmt.Sprintf("0b8a4c2e-0000-4000-%04d-%012d", shard, i) }
