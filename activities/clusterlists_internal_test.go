package activities

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keyturn/opsmanager"
)

// listServer is an Ops Manager with the lists of projects.
type listServer struct {
	entries  int
	onePage  bool
	err      error
	takes    time.Duration
	readings atomic.Int64
	canceled atomic.Int64
}

func (s *listServer) user(project string) listUser {
	return listUser{
		readingKey: readingKey{listKey: listKey{session: 1, project: project}},
		now:        now, stopping: make(chan struct{}), read: s.read,
		count: func(context.Context) (int, error) { return s.entries, s.err },
	}
}

func now() moment { return moment{server: time.Now(), worker: time.Now()} }

func (s *listServer) read(ctx context.Context) (opsmanager.ClusterList, error) {
	s.readings.Add(1)
	list := opsmanager.ClusterList{Clusters: make([]opsmanager.Cluster, s.entries), TotalCount: s.entries, OnePage: s.onePage}
	select {
	case <-time.After(s.takes):
		return list, s.err
	case <-ctx.Done():
		s.canceled.Add(1)
		return opsmanager.ClusterList{}, ctx.Err()
	}
}

// inList runs a test of lists of 10 entries that take 10 seconds to read, by a
// clock that passes when everything waits.
func inList(t *testing.T, test func(t *testing.T, lists *clusterLists, om *listServer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, &clusterLists{}, &listServer{entries: 10, takes: 10 * time.Second}) })
}

// result is what a user has been given.
type result struct {
	list *clusterList
	err  error
}

// use asks for a list in the background.
func use(ctx context.Context, lists *clusterLists, u listUser) <-chan result {
	done := make(chan result, 1)
	go func() {
		list, err := lists.readSince(ctx, u, u.now())
		done <- result{list, err}
	}()
	synctest.Wait()
	return done
}

// memory is what the lists hold at a moment.
type memory struct {
	kept               map[listKey]*clusterList
	clusters, readings int
}

func memoryOf(lists *clusterLists) memory {
	lists.mu.Lock()
	defer lists.mu.Unlock()
	return memory{maps.Clone(lists.kept), lists.clusters, len(lists.readings)}
}

func TestUsersAtTheSameTimeShareAReading(t *testing.T) {
	inList(t, func(t *testing.T, lists *clusterLists, om *listServer) {
		var users []<-chan result
		for range 8 {
			users = append(users, use(t.Context(), lists, om.user("a")))
		}
		for _, user := range users {
			got := <-user
			require.NoError(t, got.err)
			assert.Len(t, got.list.Clusters, 10)
		}
		assert.EqualValues(t, 1, om.readings.Load())
	})
}

// The reading goes on for the others, whoever began it, and ends with the last one.
func TestAUserThatIsCanceledFailsNoOther(t *testing.T) {
	inList(t, func(t *testing.T, lists *clusterLists, om *listServer) {
		first, cancelFirst := context.WithCancel(t.Context())
		second, cancelSecond := context.WithTimeout(t.Context(), time.Second)
		defer cancelSecond()
		stopping := make(chan struct{})
		third := om.user("a")
		third.stopping = stopping
		ended := []<-chan result{use(first, lists, om.user("a")), use(second, lists, om.user("a")), use(t.Context(), lists, third)}
		last, cancelLast := context.WithCancel(t.Context())
		other := use(last, lists, om.user("a"))
		cancelFirst()
		close(stopping)
		require.ErrorIs(t, (<-ended[0]).err, errCanceled)
		require.ErrorIs(t, (<-ended[1]).err, errCanceled)
		require.ErrorIs(t, (<-ended[2]).err, errWorkerStopping)
		synctest.Wait()
		assert.Zero(t, om.canceled.Load())

		cancelLast()
		require.ErrorIs(t, (<-other).err, errCanceled)
		synctest.Wait()
		assert.EqualValues(t, 1, om.canceled.Load(), "nobody waits for it any more")
		got := <-use(t.Context(), lists, om.user("a"))
		require.NoError(t, got.err, "an ended reading is not joined")
		assert.EqualValues(t, 2, om.readings.Load())
	})
}

func TestAFailedReadingIsNotKept(t *testing.T) {
	inList(t, func(t *testing.T, lists *clusterLists, om *listServer) {
		om.err = errors.New("503")
		one, other := use(t.Context(), lists, om.user("a")), use(t.Context(), lists, om.user("a"))
		require.ErrorIs(t, (<-one).err, om.err)
		require.ErrorIs(t, (<-other).err, om.err)
		om.err = nil
		list, err := lists.lastOf(t.Context(), om.user("a"))
		require.NoError(t, err)
		assert.Nil(t, list)
		require.NoError(t, (<-use(t.Context(), lists, om.user("a"))).err)
		assert.EqualValues(t, 2, om.readings.Load())
	})
}

// The age of a list is that of the request for its first page, by the clock of the
// worker and by Temporal's: a machine that was suspended has missed the time.
func TestAListIsSharedForAMinuteFromItsFirstPage(t *testing.T) {
	later := func(server, worker time.Duration) func(listUser) listUser {
		return func(u listUser) listUser {
			u.now = func() moment { return moment{server: time.Now().Add(server), worker: time.Now().Add(worker)} }
			return u
		}
	}
	for name, c := range map[string]struct {
		later func(listUser) listUser
		want  bool
	}{
		"within the minute":          {later(50*time.Second, 50*time.Second), true},
		"after it":                   {later(51*time.Second, 51*time.Second), false},
		"after it, by Temporal only": {later(51*time.Second, 0), false},
		"after it, by the worker":    {later(-time.Hour, 51*time.Second), false},
	} {
		t.Run(name, func(t *testing.T) {
			inList(t, func(t *testing.T, lists *clusterLists, om *listServer) {
				require.NoError(t, (<-use(t.Context(), lists, om.user("a"))).err)
				list, err := lists.lastOf(t.Context(), c.later(om.user("a")))
				require.NoError(t, err)
				assert.Equal(t, c.want, list != nil)
			})
		})
	}
}

// A list becomes too old while it is waited for, or while its entries are counted.
func TestAListThatBecomesTooOldIsNotShared(t *testing.T) {
	inList(t, func(t *testing.T, lists *clusterLists, om *listServer) {
		om.takes = 55 * time.Second
		starter := use(t.Context(), lists, om.user("a"))
		user := om.user("a")
		list, err := lists.lastOf(t.Context(), user)
		require.NoError(t, err)
		require.NotNil(t, list)
		require.NoError(t, (<-starter).err)
		user.count = func(context.Context) (int, error) {
			time.Sleep(6 * time.Second)
			return 10, nil
		}
		isRecent, err := lists.confirm(t.Context(), user, list)
		require.NoError(t, err)
		assert.False(t, isRecent)
	})
}

func TestAListIsConfirmedByTheNumberOfItsEntries(t *testing.T) {
	inList(t, func(t *testing.T, lists *clusterLists, om *listServer) {
		list := (<-use(t.Context(), lists, om.user("a"))).list
		for entries, want := range map[int]bool{9: false, 10: true, 11: false} {
			om.entries = entries
			isRecent, err := lists.confirm(t.Context(), om.user("a"), list)
			require.NoError(t, err)
			assert.Equal(t, want, isRecent, entries)
		}
		om.entries, om.err = 10, errors.New("503")
		_, err := lists.confirm(t.Context(), om.user("a"), list)
		require.ErrorIs(t, err, om.err)
	})
}

// Who asks for a list as it is now gets none whose reading began before.
func TestAFreshListIsNotTheOneThatIsBeingRead(t *testing.T) {
	inList(t, func(t *testing.T, lists *clusterLists, om *listServer) {
		before := use(t.Context(), lists, om.user("a"))
		time.Sleep(time.Second)
		om.takes = 2 * time.Second // it ends before the one that began before
		since := om.user("a")
		asked := since.now()
		list, err := lists.readSince(t.Context(), since, asked)
		require.NoError(t, err)
		assert.False(t, list.began.worker.Before(asked.worker))
		older := (<-before).list
		assert.EqualValues(t, 2, om.readings.Load())

		last, err := lists.lastOf(t.Context(), om.user("a"))
		require.NoError(t, err)
		assert.Same(t, list, last)
		assert.NotSame(t, older, last)
		again, err := lists.readSince(t.Context(), om.user("a"), asked)
		require.NoError(t, err)
		assert.Same(t, list, again, "it has begun since")
	})
}

// A list that takes longer than a minute is good enough for those who asked for it
// before it began, and for nobody else: nobody waits for a second one in vain.
func TestAListThatTakesLongerThanAMinute(t *testing.T) {
	inList(t, func(t *testing.T, lists *clusterLists, om *listServer) {
		om.takes = 2 * time.Minute
		first, second := use(t.Context(), lists, om.user("a")), use(t.Context(), lists, om.user("a"))
		time.Sleep(61 * time.Second)
		list, err := lists.lastOf(t.Context(), om.user("a"))
		require.NoError(t, err)
		assert.Nil(t, list, "the reading in progress is too old to be joined")
		late := use(t.Context(), lists, om.user("a"))
		for _, user := range []<-chan result{first, second, late} {
			require.NoError(t, (<-user).err)
		}
		assert.EqualValues(t, 2, om.readings.Load())
		assert.Empty(t, memoryOf(lists).kept)
	})
}

func TestProjectsAndAPIKeysHaveListsOfTheirOwn(t *testing.T) {
	inList(t, func(t *testing.T, lists *clusterLists, om *listServer) {
		other := om.user("a")
		other.session = 2
		for _, u := range []listUser{om.user("a"), om.user("b"), other} {
			require.NoError(t, (<-use(t.Context(), lists, u)).err)
		}
		assert.EqualValues(t, 3, om.readings.Load())
		assert.Len(t, memoryOf(lists).kept, 3)
	})
}

// A reading of low priority may wait for all others; so does nobody else.
func TestNobodyWaitsForAReadingOfLowPriority(t *testing.T) {
	inList(t, func(t *testing.T, lists *clusterLists, om *listServer) {
		low := om.user("a")
		low.lowPriority = true
		fleet := use(t.Context(), lists, low)
		operator := use(t.Context(), lists, om.user("a"))
		assert.EqualValues(t, 2, om.readings.Load())
		another := use(t.Context(), lists, low)
		assert.EqualValues(t, 2, om.readings.Load())
		for _, user := range []<-chan result{fleet, operator, another} {
			require.NoError(t, (<-user).err)
		}
	})
}

func TestListsOfOnePageAndOfUnknownLengthAreNotKept(t *testing.T) {
	inList(t, func(t *testing.T, lists *clusterLists, om *listServer) {
		om.onePage = true
		require.NoError(t, (<-use(t.Context(), lists, om.user("a"))).err)
		om.onePage, om.entries = false, 0
		require.NoError(t, (<-use(t.Context(), lists, om.user("b"))).err)
		om.entries = maxKeptClusters + 1
		require.NoError(t, (<-use(t.Context(), lists, om.user("c"))).err)
		assert.Empty(t, memoryOf(lists).kept)
		for _, project := range []string{"a", "b", "c"} {
			list, err := lists.lastOf(t.Context(), om.user(project))
			require.NoError(t, err)
			assert.Nil(t, list)
		}
	})
}

func TestKeptListsAreBoundedAndForgotten(t *testing.T) {
	inList(t, func(t *testing.T, lists *clusterLists, om *listServer) {
		om.entries, om.takes = maxKeptClusters/4, time.Second
		for i := range 6 {
			require.NoError(t, (<-use(t.Context(), lists, om.user(fmt.Sprint(i)))).err)
		}
		full := memoryOf(lists)
		assert.Equal(t, maxKeptClusters, full.clusters)
		assert.Len(t, full.kept, 4)
		for project, want := range map[string]bool{"1": false, "2": true, "5": true} {
			assert.Equal(t, want, full.kept[om.user(project).listKey] != nil, project)
		}
		require.NoError(t, (<-use(t.Context(), lists, om.user("5"))).err)
		assert.Equal(t, maxKeptClusters, memoryOf(lists).clusters, "a newer list replaces its project's")
		time.Sleep(maxListAge)
		synctest.Wait()
		left := memoryOf(lists)
		assert.Empty(t, left.kept)
		assert.Zero(t, left.clusters)
		assert.Zero(t, left.readings)
	})
}
