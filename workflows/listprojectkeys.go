package workflows

import (
	"fmt"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"keyturn/activities"
)

// Workflow types and signals of a listing of keys, beside ListKeysType.
const (
	// ListProjectKeysType is the child of ListKeys that lists one project.
	ListProjectKeysType = "ListProjectKeys"
	// ListKeyPageType is the child of ListProjectKeys that reads some clusters;
	// its result is a KeyPage.
	ListKeyPageType = "ListKeyPage"

	pauseSignal           = "list-keys-pause"
	projectProgressSignal = "list-keys-progress"
)

const (
	// clustersPerKeyBatch and partsPerKeyBatch bound what one activity reads.
	clustersPerKeyBatch = 20
	partsPerKeyBatch    = 500
	// clustersPerKeyPage bounds what one page reads, and so how much the end of a
	// worker's machine can cost.
	clustersPerKeyPage = 100
	// maxKeyPageSize is where a page ends, in bytes of its records as JSON. With
	// one more activity's result and all reasons, its result stays below 2 MiB.
	maxKeyPageSize = 1 << 20
)

// pauseState is what a parent signals to its child.
type pauseState struct {
	Paused bool `json:"paused"`
}

// projectProgress is what a project signals to its parent.
type projectProgress struct {
	ProjectID    string `json:"projectId"`
	ClustersDone int    `json:"clustersDone"`
	Clusters     int    `json:"clusters"`
}

type listProjectKeysInput struct {
	Connection string `json:"connection"`
	ProjectID  string `json:"projectId"`
}

// listProjectKeysResult has the references of the project's pages: the records
// stay in the pages' own results.
type listProjectKeysResult struct {
	Complete         bool               `json:"complete"`
	Reasons          []IncompleteReason `json:"reasons"`
	ReasonsNotListed int                `json:"reasonsNotListed"`
	Pages            []KeyPageRef       `json:"pages"`
}

// KeyPage is the result of a page: the records of some clusters of a project. A
// key that other pages' clusters use, too, has a record there, too; see
// [MergeKeyRecords].
type KeyPage struct {
	// Connection is the listing's.
	Connection string `json:"connection"`
	// ProjectID is the project whose clusters these are.
	ProjectID string `json:"projectId"`
	// Complete: everything of these clusters was read that may name a key.
	Complete bool `json:"complete"`
	// Reasons why it is not complete, up to 100.
	Reasons []IncompleteReason `json:"reasons"`
	// ReasonsNotListed is the number of reasons beyond those in Reasons.
	ReasonsNotListed int `json:"reasonsNotListed"`
	// Clusters is the number of clusters that were read as a whole.
	Clusters int `json:"clusters"`
	// ClusterIDs are those of these clusters, whether they have keys or not; none from
	// an earlier version.
	ClusterIDs []string `json:"clusterIds,omitempty"`
	// Snapshots is the number of snapshots of these clusters.
	Snapshots int `json:"snapshots"`
	// RestoreJobs is the number of restore jobs of these clusters.
	RestoreJobs int `json:"restoreJobs"`
	// Keys has one record for each key, about 1 MiB as JSON at the most.
	Keys []KeyRecord `json:"keys"`
	// NextKey: the cluster after the Clusters above has more keys, after this one.
	NextKey string `json:"nextKey,omitempty"`
}

type listKeyPageInput struct {
	Connection string                  `json:"connection"`
	ProjectID  string                  `json:"projectId"`
	Clusters   []activities.KeyCluster `json:"clusters"`
	AfterKey   string                  `json:"afterKey,omitempty"`
	Paused     bool                    `json:"paused,omitempty"`
}

// carriedProjectKeys is what a run hands to the one that it continues as.
type carriedProjectKeys struct {
	Result listProjectKeysResult `json:"result"`
	Page   int                   `json:"page"`
	After  string                `json:"after"`
	// AfterKey continues within cluster Within.
	AfterKey string `json:"afterKey,omitempty"`
	Within   string `json:"within,omitempty"`
	Done     int    `json:"done"`
	Paused   bool   `json:"paused,omitempty"`
	// Writer is set where the state is handed over.
	Writer stateWriter `json:"writer,omitzero"`
}

// projectKeys is one run of ListProjectKeys.
type projectKeys struct {
	input listProjectKeysInput
	carriedProjectKeys
	clusters []activities.KeyCluster // still to be read, of those listed
	more     bool                    // there are clusters after them
	total    int
	page     workflow.ChildWorkflowFuture
}

// listProjectKeys lists one project: one listing of its clusters serves all of
// them. A project that cannot be listed is a reason in its result.
func listProjectKeys(ctx workflow.Context, input listProjectKeysInput, second converter.RawValue) (*listProjectKeysResult, error) {
	carried, err := decodeCarried[carriedProjectKeys](ctx, second)
	if err != nil {
		return nil, err
	}
	p := &projectKeys{input: input}
	p.Result = listProjectKeysResult{Complete: true, Reasons: []IncompleteReason{}, Pages: []KeyPageRef{}}
	if carried != nil {
		p.carriedProjectKeys = *carried
	}
	receivePause(ctx, func(ctx workflow.Context, paused bool) {
		p.Paused = paused
		if p.page != nil {
			p.page.SignalChildWorkflow(ctx, pauseSignal, pauseState{paused})
		}
	})
	return p.run(ctx)
}

func receivePause(ctx workflow.Context, set func(workflow.Context, bool)) {
	signals := workflow.GetSignalChannel(ctx, pauseSignal)
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			var state pauseState
			if more := signals.Receive(ctx, &state); !more {
				return
			}
			set(ctx, state.Paused)
		}
	})
}

func (p *projectKeys) run(ctx workflow.Context) (*listProjectKeysResult, error) {
	for listed := false; !listed || len(p.clusters) > 0 || p.more; listed = true {
		if len(p.clusters) == 0 {
			if err := p.list(ctx); err != nil {
				return p.failed(ctx, "the project cannot be listed", err)
			}
			if len(p.clusters) == 0 {
				break
			}
		}
		p.reportProgress(ctx)
		if err := workflow.Await(ctx, func() bool { return !p.Paused }); err != nil {
			return nil, err
		}
		if err := p.readPage(ctx); err != nil {
			return p.failed(ctx, "a page of the project cannot be read", err)
		}
		if isHistoryLong(ctx) && (len(p.clusters) > 0 || p.more) {
			p.Writer = writerOf(ctx)
			return nil, workflow.NewContinueAsNewError(ctx, ListProjectKeysType, p.input, p.carriedProjectKeys)
		}
	}
	return &p.Result, nil
}

// failed makes an error a reason, but for the workflow's own cancellation.
func (p *projectKeys) failed(ctx workflow.Context, what string, err error) (*listProjectKeysResult, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	p.addReason(IncompleteReason{Reason: activities.IncompleteUnreadable, ProjectID: p.input.ProjectID, Message: what + ": " + targetErrorOf(err).Message})
	return &p.Result, nil
}

func (p *projectKeys) addReason(reason IncompleteReason) {
	p.Result.Complete = false
	p.Result.Reasons, p.Result.ReasonsNotListed = appendReason(p.Result.Reasons, p.Result.ReasonsNotListed, reason)
}

// list gets the clusters after those that were read.
func (p *projectKeys) list(ctx workflow.Context) error {
	var listed activities.ListKeyClustersResult
	err := workflow.ExecuteActivity(keyActivityOptions(ctx, "list clusters and backups"), activities.ListKeyClustersName, activities.ListKeyClustersInput{
		Scope: keyScope(p.input.Connection, p.input.ProjectID), After: p.After,
	}).Get(ctx, &listed)
	if err != nil {
		return err
	}
	p.clusters, p.more, p.total = listed.Clusters, listed.More, listed.Total
	if p.AfterKey != "" && (len(p.clusters) == 0 || p.clusters[0].ClusterID != p.Within) {
		p.AfterKey = "" // the cluster is gone
	}
	for _, reason := range listed.Reasons {
		p.addReason(reason)
	}
	return nil
}

func keyScope(connection, projectID string) activities.Scope {
	return activities.Scope{Connection: connection, ProjectID: projectID, RetryTimeout: keyRetryTimeout}
}

func (p *projectKeys) reportProgress(ctx workflow.Context) {
	if parent := workflow.GetInfo(ctx).ParentWorkflowExecution; parent != nil {
		// Whether it arrives does not matter: the result has the counts.
		workflow.SignalExternalWorkflow(ctx, parent.ID, "", projectProgressSignal, projectProgress{p.input.ProjectID, p.Done, p.total})
	}
}

// readPage reads the next clusters by a child of its own, whose result has the
// records.
func (p *projectKeys) readPage(ctx workflow.Context) error {
	p.Page++
	clusters := p.clusters[:min(len(p.clusters), clustersPerKeyPage)]
	id := fmt.Sprintf("%s:%d", workflow.GetInfo(ctx).WorkflowExecution.ID, p.Page)
	p.page = workflow.ExecuteChildWorkflow(keyChildOptions(ctx, id, fmt.Sprintf("List the KMIP master keys of project %s, page %d", p.input.ProjectID, p.Page)),
		ListKeyPageType, listKeyPageInput{Connection: p.input.Connection, ProjectID: p.input.ProjectID, Clusters: clusters, AfterKey: p.AfterKey, Paused: p.Paused})
	var execution workflow.Execution
	if err := p.page.GetChildWorkflowExecution().Get(ctx, &execution); err != nil {
		return err
	}
	var page KeyPage
	err := p.page.Get(ctx, &page)
	p.page = nil
	if err != nil {
		return err
	}
	for _, reason := range page.Reasons {
		p.addReason(reason)
	}
	p.Result.ReasonsNotListed += page.ReasonsNotListed
	p.Result.Pages = append(p.Result.Pages, KeyPageRef{
		ProjectID: p.input.ProjectID, WorkflowID: execution.ID, RunID: execution.RunID, Complete: page.Complete,
		Clusters: page.Clusters, Snapshots: page.Snapshots, RestoreJobs: page.RestoreJobs, Keys: len(page.Keys),
	})
	if page.Clusters > 0 {
		p.After = clusters[page.Clusters-1].ClusterID
	}
	p.AfterKey, p.Done, p.clusters = page.NextKey, p.Done+page.Clusters, p.clusters[page.Clusters:]
	if p.Within = ""; p.AfterKey != "" {
		p.Within = p.clusters[0].ClusterID
	}
	return nil
}

// listKeyPage reads clusters in batches until all are read or the page is full.
func listKeyPage(ctx workflow.Context, input listKeyPageInput) (*KeyPage, error) {
	page := &KeyPage{
		Connection: input.Connection, ProjectID: input.ProjectID, Complete: true,
		Reasons: []IncompleteReason{}, Keys: []KeyRecord{}, NextKey: input.AfterKey,
	}
	paused := input.Paused
	receivePause(ctx, func(_ workflow.Context, state bool) { paused = state })
	at := map[string]int{} // by key
	for size := 0; page.Clusters < len(input.Clusters) && size < maxKeyPageSize; {
		if err := workflow.Await(ctx, func() bool { return !paused }); err != nil {
			return nil, err
		}
		batch := keyBatch(input.Clusters[page.Clusters:])
		var read activities.ListClusterKeysResult
		err := workflow.ExecuteActivity(keyActivityOptions(ctx, batchSummary(batch)), activities.ListClusterKeysName, activities.ListClusterKeysInput{
			Scope: keyScope(input.Connection, input.ProjectID), Clusters: batch, AfterKey: page.NextKey,
		}).Get(ctx, &read)
		if err != nil {
			return nil, err
		}
		size += read.Size
		page.add(read, at)
		workflow.SetCurrentDetails(ctx, fmt.Sprintf("**Keys** of project %s: %d of %d clusters read, %s, %s\n",
			input.ProjectID, page.Clusters, len(input.Clusters), plural(page.Snapshots, "snapshot"), plural(len(page.Keys), "key")))
	}
	if workflow.GetVersion(ctx, "name-clusters-of-key-pages", workflow.DefaultVersion, 1) == 1 {
		for _, cluster := range input.Clusters[:page.Clusters] {
			page.ClusterIDs = append(page.ClusterIDs, cluster.ClusterID)
		}
	}
	return page, nil
}

func (page *KeyPage) add(read activities.ListClusterKeysResult, at map[string]int) {
	page.Clusters += read.Done
	page.NextKey = read.AfterKey
	page.Snapshots += read.Snapshots
	page.RestoreJobs += read.RestoreJobs
	for _, reason := range read.Reasons {
		page.Complete = false
		page.Reasons, page.ReasonsNotListed = appendReason(page.Reasons, page.ReasonsNotListed, reason)
	}
	for _, record := range read.Keys {
		if i, found := at[record.KeyUUID]; found {
			page.Keys[i] = MergeKeyRecords(page.Keys[i], record)
			continue
		}
		at[record.KeyUUID] = len(page.Keys)
		page.Keys = append(page.Keys, record)
	}
}

// keyBatch is what the next activity reads.
func keyBatch(clusters []activities.KeyCluster) []activities.KeyCluster {
	parts := 0
	for i, cluster := range clusters {
		parts += len(cluster.Parts)
		if i == clustersPerKeyBatch || i > 0 && parts > partsPerKeyBatch {
			return clusters[:i]
		}
	}
	return clusters
}

func batchSummary(batch []activities.KeyCluster) string {
	name := batch[0].ClusterName
	if name == "" {
		name = batch[0].ClusterID
	}
	if len(batch) > 1 {
		name = fmt.Sprintf("%s and %d more", name, len(batch)-1)
	}
	return shorten("read keys and snapshots of " + name)
}
