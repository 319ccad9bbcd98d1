package ledger

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// rowsOf are rows of one batch each. read counts those that were read.
func rowsOf(count int, read *int) func(yield func(row) bool) {
	return func(yield func(row) bool) {
		for i := range count {
			*read++
			if !yield(row{int64(i), strings.Repeat("x", batchBytes)}) {
				return
			}
		}
	}
}

// The first row is examined last: its result comes first all the same.
func TestExaminedRowsKeepTheirOrder(t *testing.T) {
	const count = 100
	read := 0
	second := make(chan struct{})
	examine := func(r row) int64 {
		switch r[0] {
		case int64(0):
			<-second
		case int64(1):
			close(second)
		}
		return r[0].(int64)
	}
	var numbers []int64
	for number := range examineInOrder(rowsOf(count, &read), examine) {
		numbers = append(numbers, number)
	}
	assert.Equal(t, count, read)
	assert.Len(t, numbers, count)
	assert.IsIncreasing(t, numbers)
}

func TestNoRowIsReadAfterAnEnd(t *testing.T) {
	read := 0
	for range examineInOrder(rowsOf(1_000_000, &read), func(r row) int64 { return r[0].(int64) }) {
		break
	}
	atEnd := read
	assert.Less(t, atEnd, 1_000)
	for range examineInOrder(rowsOf(0, &read), func(r row) int64 { return r[0].(int64) }) {
		assert.Fail(t, "there is no row")
	}
	assert.Equal(t, atEnd, read, "nothing reads any more")
}

func TestSmallRowsShareABatch(t *testing.T) {
	sizes := []int{}
	for batch := range inBatches(func(yield func(row) bool) {
		for range 10 {
			if !yield(row{strings.Repeat("x", batchBytes/4)}) {
				return
			}
		}
	}) {
		sizes = append(sizes, len(batch))
	}
	assert.Equal(t, []int{4, 4, 2}, sizes)
}
