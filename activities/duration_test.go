package activities_test

import (
	"encoding/json"
	"flag"
	"io"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/activities"
)

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for text, expected := range map[string]struct {
		duration  time.Duration
		canonical string
	}{
		"15m":                        {15 * time.Minute, "15m"},
		"1h0m0s":                     {time.Hour, "1h"},
		"10m0s":                      {10 * time.Minute, "10m"},
		"100h":                       {100 * time.Hour, "4d4h"},
		"20s":                        {20 * time.Second, "20s"},
		"1h0m10s":                    {time.Hour + 10*time.Second, "1h0m10s"},
		"90d":                        {90 * day, "90d"},
		"168h":                       {7 * day, "7d"},
		"1d12h":                      {36 * time.Hour, "1d12h"},
		"1.5d":                       {36 * time.Hour, "1d12h"},
		".5d":                        {12 * time.Hour, "12h"},
		"0d":                         {0, "0s"},
		"0":                          {0, "0s"},
		"+2d":                        {2 * day, "2d"},
		"-2d":                        {-2 * day, "-2d"},
		"-1d12h":                     {-36 * time.Hour, "-1d12h"},
		"-36h":                       {-36 * time.Hour, "-1d12h"},
		"1d500ms":                    {day + 500*time.Millisecond, "1d500ms"},
		"1d36h":                      {60 * time.Hour, "2d12h"},
		"-2562047h47m16.854775808s":  {math.MinInt64, "-106751d23h47m16.854775808s"},
		"106751d23h47m16.854775807s": {math.MaxInt64, "106751d23h47m16.854775807s"},
	} {
		t.Run(text, func(t *testing.T) {
			parsed, err := activities.ParseDuration(text)
			require.NoError(t, err)
			assert.Equal(t, expected.duration, parsed.Std())
			assert.Equal(t, expected.canonical, parsed.String())
			back, err := activities.ParseDuration(parsed.String())
			require.NoError(t, err)
			assert.Equal(t, parsed, back)
		})
	}
}

func TestParseDurationRefuses(t *testing.T) {
	for _, text := range []string{
		"", "d", "15", "90 d", "90days", "1d2d", "12h1d", "1h30m2d", "1d-12h", "1d+12h", "--1d", "+-1d", "1..5d", "1e3d", "1w",
		"106752d", "106751d24h", "106751d23h47m16.854775808s", "-106751d23h47m16.854775809s", "-106752d", "99999999999999999999d", "9999999999h",
	} {
		t.Run(text, func(t *testing.T) {
			parsed, err := activities.ParseDuration(text)
			assert.ErrorContains(t, err, "must be a duration such as", "%s", parsed)
		})
	}
}

func TestDurationInJSON(t *testing.T) {
	var read struct {
		D activities.Duration `json:"d"`
	}
	require.NoError(t, json.Unmarshal([]byte(`{"d":"7d"}`), &read))
	written, err := json.Marshal(read)
	require.NoError(t, err)
	assert.JSONEq(t, `{"d":"168h0m0s"}`, string(written), "earlier versions must be able to read it")
	assert.Error(t, json.Unmarshal([]byte(`{"d":7}`), &read))
}

func TestDurationAsFlag(t *testing.T) {
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	every := activities.Duration(24 * time.Hour)
	flags.Var(&every, "every", "")
	assert.Equal(t, "1d", flags.Lookup("every").DefValue)
	require.NoError(t, flags.Parse([]string{"-every", "90d"}))
	assert.Equal(t, 90*24*time.Hour, every.Std())
	assert.ErrorContains(t, flags.Parse([]string{"-every", "90"}), "must be a duration")
}

func FuzzParseDuration(f *testing.F) {
	for _, text := range []string{"1d12h", "-1.5d", "106751d23h47m16.854775807s", "1h30m2d"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := activities.ParseDuration(text)
		if err != nil {
			return
		}
		back, err := activities.ParseDuration(parsed.String())
		require.NoError(t, err, "%q", parsed.String())
		require.Equal(t, parsed, back)
	})
}
