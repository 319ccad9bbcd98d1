package main

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"keyturn/internal/kmipevidence"
	"keyturn/internal/setting"
)

// The settings of the KMIP server that a connection's keys are in, as the keys of
// the table [connections.<name>.kmip] in the connections file. The variables of
// the connection "default" are these names in capitals after KMIP_.
const (
	kmipTable             = "kmip"
	kmipPrefix            = "KMIP_"
	kmipAddressKey        = "address"
	kmipServerNameKey     = "server_name"
	kmipCAFileKey         = "ca_file"
	kmipClientCertFileKey = "client_cert_file"
	kmipClientKeyFileKey  = "client_key_file"
)

// kmipKeys are in the order of the fields of kmipevidence.Config.
var kmipKeys = []string{kmipAddressKey, kmipServerNameKey, kmipCAFileKey, kmipClientCertFileKey, kmipClientKeyFileKey}

// kmipConnection is the KMIP server that is asked about a connection's keys.
type kmipConnection struct {
	name   string // of the connection
	client *kmipevidence.Client

	mu sync.Mutex
	// problem is why it cannot be asked, by the last check; empty = it can, or no
	// check has ended yet.
	problem string
}

// firstSetting is the name of a setting that is given.
func (r rawConnection) firstSetting() string {
	return r.label(slices.Min(slices.Collect(maps.Keys(r.values))))
}

// fileKMIP takes the table kmip out of a connection's values; nil = there is none.
func (r rawConnection) fileKMIP() (*rawConnection, error) {
	written, set := r.values[kmipTable]
	if !set {
		return nil, nil
	}
	delete(r.values, kmipTable)
	raw := rawConnection{label: func(key string) string { return strings.TrimSuffix(r.label(kmipTable)+"."+key, ".") }, directory: r.directory}
	var isTable bool
	if raw.values, isTable = written.(map[string]any); !isTable {
		return nil, setting.Errorf(raw.label(""), "must be a table")
	}
	return &raw, checkKeys(raw.values, kmipKeys, raw.label)
}

// kmipValues are the settings of its KMIP server; nil = none.
func (r rawConnection) kmipValues() map[string]any {
	if r.kmip == nil {
		return nil
	}
	return r.kmip.values
}

// connectKMIP makes the client of the connection of this name. It sends nothing.
func (r rawConnection) connectKMIP(name string) (*kmipConnection, error) {
	config := kmipevidence.Config{Label: r.kmipLabel}
	for i, into := range []*string{&config.Address, &config.ServerName, &config.CAFile, &config.ClientCertFile, &config.ClientKeyFile} {
		value, err := valueOf[string](r, kmipKeys[i])
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(kmipKeys[i], "_file") {
			value = r.path(value)
		}
		*into = value
	}
	client, err := kmipevidence.New(config)
	if err != nil {
		return nil, err
	}
	return &kmipConnection{name: name, client: client}, nil
}

// kmipLabel is the user's name of a setting that kmipevidence names.
func (r rawConnection) kmipLabel(name string) string {
	return r.label(strings.ToLower(strings.TrimPrefix(name, kmipPrefix)))
}

// checkKMIP checks whether each KMIP server can be asked, now and until ctx ends,
// and logs what has changed. A KMIP server that cannot be asked is a warning: no
// rotation needs it.
func (s settings) checkKMIP(ctx context.Context, logger *slog.Logger) {
	var checks sync.WaitGroup
	for _, c := range s.connections {
		if c.kmip != nil {
			checks.Go(func() { c.kmip.checkAgain(ctx, s.monitoring, logger) })
		}
	}
	checks.Wait()
	for _, c := range s.connections {
		if c.kmip != nil {
			c.kmip.client.Close()
		}
	}
}

func (k *kmipConnection) checkAgain(ctx context.Context, times monitorTimes, logger *slog.Logger) {
	first := true
	times.checkRepeatedly(ctx, k.client.Check, func(err error) {
		k.record(err, first, logger)
		first = false
	})
}

func (k *kmipConnection) record(err error, first bool, logger *slog.Logger) {
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	before := k.warning()
	k.mu.Lock()
	k.problem = problem
	k.mu.Unlock()
	switch {
	case problem != "" && problem != before:
		logger.Warn("cannot ask the KMIP server; records of rotations will lack its evidence", "connection", k.name, "error", problem)
	case problem == "" && (first || before != ""):
		logger.Info("the KMIP server answers", "connection", k.name)
	}
}

// warning is why the KMIP server cannot be asked; empty = it can.
func (k *kmipConnection) warning() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.problem
}
