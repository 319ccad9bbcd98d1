package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"keyturn/testsuite/simulator"
)

// deploymentSettings are the flags of the clusters whose processes have keys of
// their own.
type deploymentSettings struct {
	project, cluster string
	clusters         int
	shards, members  int
	memberTime       time.Duration
	snapshotEvery    time.Duration
	documentSize     int
}

func (d *deploymentSettings) addFlags(flags *pflag.FlagSet) {
	flags.IntVar(&d.clusters, "deployment-clusters", 0, "number of clusters that Ops Manager automates, with KMIP encryption at rest")
	flags.StringVar(&d.project, "deployment-project", "", "ID of their project (default: that of --project)")
	flags.StringVar(&d.cluster, "deployment-cluster", "payments", "display name of the first of them; the others are NAME2, NAME3 and so on")
	flags.IntVar(&d.shards, "deployment-shards", 2, "shards of each of them; 0 means replica sets")
	flags.IntVar(&d.members, "deployment-members", 3, "members of each of their replica sets")
	flags.DurationVar(&d.memberTime, "deployment-member-time", 2*time.Second, "time that a member takes to rotate its key and restart")
	flags.DurationVar(&d.snapshotEvery, "deployment-snapshot-every", time.Minute, "interval of their snapshots; 0 means none but the first")
	flags.IntVar(&d.documentSize, "deployment-document-size", 0, "least size of the automation configuration in bytes")
}

func (d *deploymentSettings) check() error {
	switch {
	case d.project != "" && !simulator.IsID(d.project):
		return errors.New("--deployment-project: must be 24 hex digits in lower case")
	case d.clusters < 0:
		return errors.New("--deployment-clusters: must not be negative")
	case d.shards < 0:
		return errors.New("--deployment-shards: must not be negative")
	case d.members < 1:
		return errors.New("--deployment-members: must be at least 1")
	case d.memberTime < 0:
		return errors.New("--deployment-member-time: must not be negative")
	case d.snapshotEvery < 0:
		return errors.New("--deployment-snapshot-every: must not be negative")
	case d.documentSize < 0 || d.documentSize > maxDocument:
		return fmt.Errorf("--deployment-document-size: must be 0 to %d", maxDocument)
	}
	return nil
}

// maxDocument is the most that Ops Manager can keep of a configuration.
const maxDocument = 16 << 20

// populate adds the clusters, unless the project has a deployment already: a state
// file of a time without them gets them.
func (d *deploymentSettings) populate(om *simulator.Simulator, project string) {
	if d.project != "" {
		project = d.project
	}
	if d.clusters == 0 || om.Deployment(project) != nil {
		return
	}
	options := simulator.DeploymentOptions{
		ProjectID: project, MemberTime: d.memberTime, SnapshotEvery: d.snapshotEvery, DocumentSize: d.documentSize,
		// As Ops Manager writes them, unless members restart faster than that.
		WholeSeconds: d.memberTime >= time.Second,
	}
	for i := range d.clusters {
		cluster := simulator.DeployedCluster{Name: d.cluster, Shards: d.shards, Members: d.members}
		if i > 0 {
			cluster.Name += strconv.Itoa(i + 1)
		}
		if d.shards > 0 {
			cluster.Mongos = 1
		}
		options.Clusters = append(options.Clusters, cluster)
	}
	om.AddDeployment(options)
}
