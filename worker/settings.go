package main

import (
	"cmp"

	"go.temporal.io/sdk/client"
	sdkworker "go.temporal.io/sdk/worker"

	"keyturn/internal/events"
	"keyturn/internal/setting"
	"keyturn/internal/temporalclient"
	"keyturn/workflows"
)

const listenVariable = "KEYTURN_LISTEN"

// settings is the worker's configuration, checked.
type settings struct {
	taskQueue string
	temporal  client.Options // without logger and identity
	// temporalFiles are what temporal is made of.
	temporalFiles *temporalclient.Configuration
	connections   []connection // by name
	// activitiesPerSecond is the queue's limit over all workers; 0 = none.
	activitiesPerSecond float64
	deployment          sdkworker.DeploymentOptions
	listen              string // empty = nowhere
	monitoring          monitorTimes
	log                 logSettings
	ledger              *ledgerKeeper  // nil = none
	events              *events.Sender // nil = none
}

// readSettings reads and checks everything that can be checked without a
// network. The error is a *setting.Error.
func readSettings(env setting.Environment) (settings, error) {
	s := settings{monitoring: defaultTimes}
	err := cmp.Or(
		read(env, readLogSettings, &s.log),
		read(env, readListen, &s.listen),
		read(env, readTaskQueue, &s.taskQueue),
		read(env, readQueueLimit, &s.activitiesPerSecond),
		read(env, readConnections, &s.connections),
		read(env, readLedger, &s.ledger),
		read(env, readEvents, &s.events),
		read(env, readTemporal, &s.temporalFiles),
		read(env, readVersioning, &s.deployment),
	)
	if err != nil {
		return settings{}, err
	}
	if s.temporal, err = s.temporalFiles.Options(); err != nil {
		return settings{}, err
	}
	return s, nil
}

func read[T any](env setting.Environment, from func(setting.Environment) (T, error), into *T) (err error) {
	*into, err = from(env)
	return err
}

func readTaskQueue(env setting.Environment) (string, error) {
	return temporalclient.TaskQueue(env, workflows.DefaultTaskQueue)
}

func readTemporal(env setting.Environment) (*temporalclient.Configuration, error) {
	return temporalclient.Load(temporalclient.Request{Env: env, Worker: true})
}
