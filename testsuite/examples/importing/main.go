// Command maintenance is the worker of another team. Its workflow Maintain
// rotates the keys of a cluster by a child workflow. Of keyturn it imports the
// package workflows only.
package main

import (
	"log"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

const taskQueue = "maintenance"

func main() {
	c, err := client.Dial(envconfig.MustLoadDefaultClientOptions())
	if err != nil {
		log.Fatalln("connect to Temporal:", err)
	}
	defer c.Close()
	w := worker.New(c, taskQueue, worker.Options{})
	w.RegisterWorkflowWithOptions(maintain, workflow.RegisterOptions{Name: maintainType})
	if err := w.Run(worker.InterruptCh()); err != nil {
		log.Fatalln("run the worker:", err)
	}
}
