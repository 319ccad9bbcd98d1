package activities

import (
	"context"
	"strings"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"

	"keyturn/opsmanager"
)

// maxListAge is how old a list may be that is shared, counted from the request for
// its first page.
const maxListAge = time.Minute

// maxKeptClusters limits the clusters of all lists that a worker keeps, some 200
// bytes each.
const maxKeptClusters = 200_000

// clusterLists shares the lists of projects' clusters among the activities of a
// worker. Without it, each rotation of a fleet would read its whole project, and
// the requests for each cluster would grow with the project.
//
// Activities that need a list at the same time read it together: it is read until
// none of them waits any more, and its failure is theirs alone. Lists of one page
// are not kept: reading one again costs as much as asking whether it has changed.
type clusterLists struct {
	mu       sync.Mutex
	readings map[readingKey]*listReading // the last one that began, of those in progress
	kept     map[listKey]*clusterList
	clusters int // of all in kept
}

// listKey is a project as an API key sees it.
type listKey struct {
	session uint64 // of the client, which belongs to one Ops Manager
	project string // in lower case
}

// readingKey separates the readings whose requests let others go first: no others
// wait for them.
type readingKey struct {
	listKey
	lowPriority bool
}

// clusterList is a complete list. It is shared and must not be changed.
type clusterList struct {
	opsmanager.ClusterList
	began moment // when its first page was requested
}

// listReading is a list that is being read.
type listReading struct {
	began   moment
	cancel  context.CancelFunc
	waiting int           // activities
	done    chan struct{} // closed when list and err are set
	list    *clusterList
	err     error
}

// moment is a time by two clocks. Temporal's goes on while the worker's machine is
// suspended, and nobody sets the worker's.
type moment struct{ server, worker time.Time }

func (at *attempt) moment() moment {
	now := time.Now()
	return moment{server: at.serverTime(now), worker: now}
}

// age is how long ago a moment was, by the clock that says more.
func (m moment) age(now moment) time.Duration {
	return max(now.server.Sub(m.server), now.worker.Sub(m.worker))
}

// listUser is an activity that needs the list of one project.
type listUser struct {
	readingKey
	now      func() moment
	stopping <-chan struct{}
	read     func(context.Context) (opsmanager.ClusterList, error)
	count    func(context.Context) (int, error)
}

// listUser returns the attempt as a user of a project's list.
func (at *attempt) listUser(project string) listUser {
	return listUser{
		readingKey: readingKey{
			listKey:     listKey{session: at.client.SessionID(), project: strings.ToLower(project)},
			lowPriority: hasLowPriority(activity.GetInfo(at.ctx)),
		},
		now: at.moment, stopping: at.stopping,
		read: func(ctx context.Context) (opsmanager.ClusterList, error) {
			return at.client.ClusterList(ctx, project)
		},
		count: func(ctx context.Context) (int, error) { return at.client.CountClusters(ctx, project) },
	}
}

// confirm reports whether a list is not older than maxListAge, and the project has
// as many entries now. So a shard that was added or removed since the list was read
// is noticed, by one small request. What is not noticed is a change that leaves the
// number of entries as it was. A list that no longer matches is not kept for others.
func (l *clusterLists) confirm(ctx context.Context, u listUser, list *clusterList) (bool, error) {
	count, err := u.count(ctx)
	if err != nil {
		return false, err
	}
	if count == list.TotalCount && list.began.age(u.now()) <= maxListAge {
		return true, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kept[u.listKey] == list {
		l.drop(u.listKey)
	}
	return false, nil
}

// lastOf returns the last list that can be confirmed by counting, after waiting for
// it if it is being read; nil = there is none.
func (l *clusterLists) lastOf(ctx context.Context, u listUser) (*clusterList, error) {
	l.mu.Lock()
	list := l.kept[u.listKey]
	if list != nil && list.began.age(u.now()) > maxListAge {
		list = nil
	}
	var reading *listReading
	if list == nil {
		reading = l.join(u, func(began moment) bool { return began.age(u.now()) <= maxListAge })
	}
	l.mu.Unlock()
	if reading == nil {
		return list, nil
	}
	list, err := l.await(ctx, u, reading)
	if err != nil || !list.isKept() {
		return nil, err
	}
	return list, nil
}

// readSince returns a list whose reading began no earlier than the user asked for
// it: as good as one that the user reads alone.
func (l *clusterLists) readSince(ctx context.Context, u listUser, asked moment) (*clusterList, error) {
	isSince := func(began moment) bool { return !began.worker.Before(asked.worker) }
	l.mu.Lock()
	if list := l.kept[u.listKey]; list != nil && isSince(list.began) {
		l.mu.Unlock()
		return list, nil
	}
	reading := l.join(u, isSince)
	if reading == nil {
		reading = l.start(u)
	}
	l.mu.Unlock()
	return l.await(ctx, u, reading)
}

// join adds a user to a reading in progress that suits it. Every reading that is
// joined must be awaited.
func (l *clusterLists) join(u listUser, suits func(began moment) bool) *listReading {
	for _, low := range []bool{false, true} {
		reading := l.readings[readingKey{u.listKey, low}]
		if reading != nil && (u.lowPriority || !low) && suits(reading.began) {
			reading.waiting++
			return reading
		}
	}
	return nil
}

// start starts a reading for its first user. It does not end with that user's
// context: others may wait for it.
func (l *clusterLists) start(u listUser) *listReading {
	ctx := context.Background()
	if u.lowPriority {
		ctx = opsmanager.WithLowPriority(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	reading := &listReading{began: u.now(), cancel: cancel, waiting: 1, done: make(chan struct{})}
	if l.readings == nil {
		l.readings, l.kept = map[readingKey]*listReading{}, map[listKey]*clusterList{}
	}
	l.readings[u.readingKey] = reading
	go func() {
		list, err := u.read(ctx)
		l.ended(u.readingKey, reading, list, err)
	}()
	return reading
}

// ended records what has come of a reading.
func (l *clusterLists) ended(key readingKey, reading *listReading, list opsmanager.ClusterList, err error) {
	reading.cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(key, reading)
	if err == nil {
		reading.list = &clusterList{ClusterList: compact(list, key.project), began: reading.began}
		l.keep(key.listKey, reading.list)
	}
	reading.err = err
	close(reading.done)
}

// forget keeps others from joining a reading.
func (l *clusterLists) forget(key readingKey, reading *listReading) {
	if l.readings[key] == reading {
		delete(l.readings, key)
	}
}

// await waits for a reading, which ends when nobody waits for it.
func (l *clusterLists) await(ctx context.Context, u listUser, reading *listReading) (*clusterList, error) {
	select {
	case <-reading.done:
		return reading.list, reading.err
	case <-ctx.Done():
		l.leave(u, reading)
		return nil, errCanceled
	case <-u.stopping:
		l.leave(u, reading)
		return nil, errWorkerStopping
	}
}

// leave removes a user from a reading.
func (l *clusterLists) leave(u listUser, reading *listReading) {
	l.mu.Lock()
	defer l.mu.Unlock()
	reading.waiting--
	if reading.waiting == 0 {
		reading.cancel()
		for _, low := range []bool{false, true} {
			l.forget(readingKey{u.listKey, low}, reading)
		}
	}
}

// isKept reports whether a list is worth keeping, and can be compared with a count.
func (list *clusterList) isKept() bool {
	return !list.OnePage && list.TotalCount > 0 && len(list.Clusters) <= maxKeptClusters
}

// keep keeps a list for as long as it may be shared. The oldest ones make room.
func (l *clusterLists) keep(key listKey, list *clusterList) {
	left := maxListAge - time.Since(list.began.worker)
	if last := l.kept[key]; !list.isKept() || left <= 0 || last != nil && last.began.worker.After(list.began.worker) {
		return
	}
	l.drop(key)
	for l.clusters+len(list.Clusters) > maxKeptClusters {
		l.drop(l.oldest())
	}
	l.kept[key] = list
	l.clusters += len(list.Clusters)
	time.AfterFunc(left, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.kept[key] == list {
			l.drop(key)
		}
	})
}

func (l *clusterLists) drop(key listKey) {
	if list := l.kept[key]; list != nil {
		l.clusters -= len(list.Clusters)
		delete(l.kept, key)
	}
}

func (l *clusterLists) oldest() (oldest listKey) {
	for key, list := range l.kept {
		if first := l.kept[oldest]; first == nil || list.began.worker.Before(first.began.worker) {
			oldest = key
		}
	}
	return oldest
}

// compact makes the entries share the texts that they have in common.
func compact(list opsmanager.ClusterList, project string) opsmanager.ClusterList {
	types := map[string]string{}
	for i := range list.Clusters {
		c := &list.Clusters[i]
		if types[c.TypeName] == "" {
			types[c.TypeName] = c.TypeName
		}
		c.GroupID, c.TypeName = project, types[c.TypeName]
	}
	return list
}
