package ledger

import (
	"iter"
	"runtime"
	"sync"
)

// batchBytes is how much of a ledger is examined in one go. It bounds the memory:
// two batches for each core wait at most.
const batchBytes = 256 << 10

// examineInOrder examines rows on all cores. It yields the results in the order of the
// rows, and returns when nothing reads them any more.
func examineInOrder[Result any](rows iter.Seq[row], examine func(row) Result) iter.Seq[Result] {
	return func(yield func(Result) bool) {
		batches, stop := make(chan (<-chan []Result), 2*runtime.GOMAXPROCS(0)), make(chan struct{})
		var reader sync.WaitGroup
		reader.Go(func() {
			defer close(batches)
			for batch := range inBatches(rows) {
				examined := make(chan []Result, 1)
				select {
				case batches <- examined:
				case <-stop:
					return
				}
				go func() {
					results := make([]Result, len(batch))
					for i, row := range batch {
						results[i] = examine(row)
					}
					examined <- results
				}()
			}
		})
		defer reader.Wait()
		defer close(stop)
		for examined := range batches {
			for _, result := range <-examined {
				if !yield(result) {
					return
				}
			}
		}
	}
}

// inBatches yields rows in batches of about batchBytes.
func inBatches(rows iter.Seq[row]) iter.Seq[[]row] {
	return func(yield func([]row) bool) {
		var batch []row
		size := 0
		for row := range rows {
			batch, size = append(batch, row), size+row.bytes()
			if size < batchBytes {
				continue
			}
			if !yield(batch) {
				return
			}
			batch, size = nil, 0
		}
		if len(batch) > 0 {
			yield(batch)
		}
	}
}
