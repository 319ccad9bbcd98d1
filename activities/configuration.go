package activities

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"

	"keyturn/internal/ellipsis"
	"keyturn/opsmanager"
)

const (
	// maxNamedProcesses is how many names a message lists.
	maxNamedProcesses = 5
	// maxProcessName bounds a name in a message, in characters.
	maxProcessName = 150
)

// configuration is one reading of a project's automation configuration. It is kept
// in memory only: neither a history nor a log has any of its text.
type configuration struct {
	opsmanager.AutomationConfig
	processes map[string]opsmanager.AutomatedProcess // by name
	topology  opsmanager.AutomationTopology
	// answered is when its response had been read.
	answered time.Time
}

// readConfiguration reads the configuration. Transient errors are retried for the
// time that r has left. An answer that is not the API's is only final if it is
// repeated.
func (at *attempt) readConfiguration(ctx context.Context, r retries) (configuration, error) {
	var read configuration
	err := r.transient(ctx, func() error {
		return at.rereadOdd(ctx, r, isOdd, func() (err error) {
			read.AutomationConfig, err = at.client.AutomationConfig(ctx, at.scope.ProjectID)
			return err
		})
	})
	if err != nil {
		return configuration{}, err
	}
	read.answered = time.Now()
	read.topology, err = read.Topology()
	if err != nil {
		return configuration{}, permanent(ErrorUnexpectedResponse, "GET %s: %v; check whether this version of Ops Manager is supported, and report the field",
			opsmanager.AutomationConfigPath(at.scope.ProjectID), err)
	}
	read.processes = make(map[string]opsmanager.AutomatedProcess, len(read.topology.Processes))
	for _, process := range read.topology.Processes {
		read.processes[process.Name] = process
	}
	return read, nil
}

// opsManagerTime is the time by Ops Manager's clock, or by Temporal's as long as no
// response has shown it. It is never later, as a rotation's time must be over when it
// is published, and up to a second and the duration of a request earlier.
func (at *attempt) opsManagerTime() time.Time {
	if least, _, known := at.client.ClockOffset(); known {
		return time.Now().Add(least)
	}
	return at.serverTime(time.Now())
}

// isRotationTime reports whether the text of a lastKmipMasterKeyRotation is a time,
// in whatever form Ops Manager writes it.
func isRotationTime(text string, at time.Time) bool {
	parsed, ok := opsmanager.ParseRotationTime(text)
	return ok && parsed.Equal(at)
}

// sameRotationTime reports whether two texts of a lastKmipMasterKeyRotation mean the
// same.
func sameRotationTime(a, b string) bool {
	if a == b {
		return true
	}
	at, ok := opsmanager.ParseRotationTime(a)
	return ok && isRotationTime(b, at)
}

// defaultPort is that of a mongod whose configuration has none.
const defaultPort = 27017

// hostOf is "hostname:port" of a process.
func hostOf(process opsmanager.AutomatedProcess) string {
	port := process.Port
	if port == 0 {
		port = defaultPort
	}
	return net.JoinHostPort(process.Hostname, strconv.FormatInt(port, 10))
}

// hostKey is the form in which "hostname:port" is compared.
func hostKey(host string) string { return strings.ToLower(host) }

// hostsByAddress has the monitored processes by hostKey. Of several records of one
// process, that counts which the agent reported last.
func hostsByAddress(hosts []opsmanager.Host) map[string]opsmanager.Host {
	byAddress := make(map[string]opsmanager.Host, len(hosts))
	for _, host := range hosts {
		key := hostKey(net.JoinHostPort(host.Hostname, strconv.FormatInt(host.Port, 10)))
		known, found := byAddress[key]
		if !found || known.Deactivated && !host.Deactivated || known.Deactivated == host.Deactivated && host.LastPing.After(known.LastPing) {
			byAddress[key] = host
		}
	}
	return byAddress
}

// nameList names things in a sentence: the first ones, and how many others there are.
func nameList(names []string) string {
	var b strings.Builder
	for i, name := range names {
		if i == maxNamedProcesses {
			fmt.Fprintf(&b, " and %d more", len(names)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(ellipsis.Cut(strings.Map(graphic, name), maxProcessName))
	}
	return b.String()
}

// graphic replaces what would break a line or hide in it.
func graphic(r rune) rune {
	if unicode.IsGraphic(r) {
		return r
	}
	return '?'
}
