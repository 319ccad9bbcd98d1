package activities

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A PUT replaces the whole document: nothing is sent once somebody may have published
// since the last reading.
func TestAnOldConfigurationIsNotSent(t *testing.T) {
	p := &publication{}
	from := publishedState{configuration: configuration{answered: time.Now().Add(-maxConfigurationAge - time.Second)}}
	require.ErrorIs(t, p.beforeSend(from), errConfigurationTooOld)
}
