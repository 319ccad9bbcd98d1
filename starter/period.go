package main

import (
	"time"

	"github.com/spf13/cobra"

	"keyturn/workflows"
)

// period selects rotations by when they ended or, for list, started.
type period struct {
	sinceText, untilText, zoneName string

	since, until time.Time // zero = no limit; until itself is not in the period
	zone         *time.Location
}

func (p *period) addFlags(command *cobra.Command) { p.addFlagsOf(command, "ended") }

// addFlagsOf adds the flags of a period in which rotations ended or started.
func (p *period) addFlagsOf(command *cobra.Command, did string) {
	flags := command.Flags()
	flags.StringVar(&p.sinceText, "since", "", "only rotations that "+did+" at or after this: a date (2026-01-01, from its beginning), a time in RFC 3339, or a duration before now (90d)")
	flags.StringVar(&p.untilText, "until", "", "only rotations that "+did+" before this: a date (2026-03-31, to its end), a time in RFC 3339, or a duration before now")
	flags.StringVar(&p.zoneName, "time-zone", "", "time zone of dates, such as Europe/Berlin or UTC (default the local one)")
}

func (p *period) check(now time.Time) (err error) {
	p.zone = time.Local
	if p.zoneName != "" {
		if p.zone, err = time.LoadLocation(p.zoneName); err != nil {
			return usageErrorf("--time-zone: must be a name of the IANA time zone database, such as Europe/Berlin")
		}
	}
	if p.since, err = p.read("--since", p.sinceText, now, 0); err != nil {
		return err
	}
	if p.until, err = p.read("--until", p.untilText, now, 1); err != nil {
		return err
	}
	if !p.since.IsZero() && !p.until.IsZero() && !p.since.Before(p.until) {
		return usageErrorf("--since must be before --until")
	}
	return nil
}

// read reads a time; to a date, it adds days.
func (p *period) read(flag, text string, now time.Time, days int) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if date, err := time.ParseInLocation(time.DateOnly, text, p.zone); err == nil {
		return date.AddDate(0, 0, days), nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	if d, err := workflows.ParseDuration(text); err == nil && d > 0 {
		return now.Add(-d.Std()), nil
	}
	return time.Time{}, usageErrorf("%s: must be a date such as 2026-01-31, a time in RFC 3339, or a duration before now such as 90d", flag)
}

// text names the period and its time zone; empty = it has no limits.
func (p *period) text() string {
	in := func(at time.Time) string { return at.In(p.zone).Format(time.RFC3339) }
	zone := " (" + p.zone.String() + " time)"
	switch {
	case p.since.IsZero() && p.until.IsZero():
		return ""
	case p.until.IsZero():
		return "since " + in(p.since) + zone
	case p.since.IsZero():
		return "until " + in(p.until) + zone
	default:
		return in(p.since) + " to " + in(p.until) + zone
	}
}
