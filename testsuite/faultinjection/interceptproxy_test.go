package faultinjection

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"keyturn/opsmanager"
	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/fixture"
)

// A worker has effects only by its messages: its requests to Ops Manager and
// the completions of workflow tasks and activities that it reports to Temporal.
// So the points before and after each message are all points at which killing
// the worker, or anything else, can make a difference.

// killPoint is a point in a rotation, before or after a message.
type killPoint struct {
	number int    // of the message, from 1
	name   string // of the message
	after  bool   // the message has taken effect, its response is held back
}

// equals ignores the names of messages: on a busy machine, the completions of
// two activities may or may not share a workflow task.
func (p killPoint) equals(other killPoint) bool {
	return p.number == other.number && p.after == other.after
}

// isOnChosenSide chooses one of the two points of each message: after it for every
// second one, and before it for the others.
func (p killPoint) isOnChosenSide() bool { return p.after == (p.number%2 == 0) }

func (p killPoint) String() string {
	moment := "before"
	if p.after {
		moment = "after"
	}
	return fmt.Sprintf("%02d-%s-%s", p.number, moment, strings.ReplaceAll(p.name, " ", "-"))
}

// interceptProxy is a proxy between a worker and its two servers.
type interceptProxy struct {
	temporalAddress string
	opsManagerURL   string
	// onPoint is called before and after each message, which waits for it. If
	// it returns true, the message or its response is lost.
	onPoint func(killPoint) (lost bool)
	// onActivityTask, if not nil, is called before the worker receives an
	// activity task.
	onActivityTask func()

	mu    sync.Mutex
	seen  []message
	polls []context.CancelFunc
}

// message is a message that the proxy has received.
type message struct {
	name string
	at   time.Time
}

func newInterceptProxy(s fixture.Server, reach func(killPoint) (lost bool)) *interceptProxy {
	s.Helper()
	g := &interceptProxy{onPoint: reach}
	g.serveTemporal(s)
	g.serveOpsManager(s)
	return g
}

// messages returns the messages received so far.
func (g *interceptProxy) messages() []message {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]message(nil), g.seen...)
}

// awaitMessages waits for this number of messages, at most this long.
func (g *interceptProxy) awaitMessages(n int, atMost time.Duration) {
	for deadline := time.Now().Add(atMost); len(g.messages()) < n && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
}

// before records a message and reports whether it is lost.
func (g *interceptProxy) before(name string) (p killPoint, lost bool) {
	g.mu.Lock()
	g.seen = append(g.seen, message{name, time.Now()})
	p = killPoint{number: len(g.seen), name: name}
	g.mu.Unlock()
	return p, g.isLost(p)
}

// after reports whether the response to a message is lost.
func (g *interceptProxy) after(p killPoint) (lost bool) {
	p.after = true
	return g.isLost(p)
}

func (g *interceptProxy) isLost(p killPoint) bool { return g.onPoint != nil && g.onPoint(p) }

var errLost = errors.New("lost by the test")

type killPointKey struct{}

func (g *interceptProxy) serveOpsManager(s fixture.Server) {
	s.Helper()
	target, err := url.Parse(s.OM.URL)
	require.NoError(s, err)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		// Requests on reused connections would be retried when the connection
		// is cut.
		Transport: &http.Transport{DisableKeepAlives: true},
		ModifyResponse: func(r *http.Response) error {
			if g.after(r.Request.Context().Value(killPointKey{}).(killPoint)) {
				return errLost
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     log.New(io.Discard, "", 0),
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, lost := g.before(r.Method + " " + resourceName(r.URL.Path))
		if lost {
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), killPointKey{}, p)))
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	s.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	g.opsManagerURL = server.URL
}

func (g *interceptProxy) serveTemporal(s fixture.Server) {
	s.Helper()
	const maxMessage = 64 << 20
	upstream, err := grpc.NewClient(s.TemporalServer.Address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	require.NoError(s, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(s, err)
	server := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error { return g.forward(upstream, stream) }))
	go func() { _ = server.Serve(listener) }() // until it is stopped
	s.Cleanup(func() { server.Stop(); _ = upstream.Close() })
	g.temporalAddress = listener.Addr().String()
}

// forward forwards a call to Temporal; all calls are unary.
func (g *interceptProxy) forward(upstream *grpc.ClientConn, stream grpc.ServerStream) error {
	var request, response []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	method, _ := grpc.MethodFromServerStream(stream)
	name := path.Base(method)
	counts := strings.HasPrefix(name, "Respond") && name != "RespondQueryTaskCompleted"
	var p killPoint
	if counts {
		var lost bool
		if p, lost = g.before(name); lost {
			return status.Error(codes.Unavailable, errLost.Error())
		}
	}
	ctx := stream.Context()
	if headers, found := metadata.FromIncomingContext(ctx); found {
		ctx = metadata.NewOutgoingContext(ctx, headers)
	}
	if strings.HasPrefix(name, "Poll") {
		ctx = g.trackPoll(ctx)
	}
	if err := upstream.Invoke(ctx, method, &request, &response, grpc.ForceCodecV2(rawCodec{})); err != nil {
		return err
	}
	if name == "PollActivityTaskQueue" && len(response) > 0 && g.onActivityTask != nil {
		g.onActivityTask()
	}
	if counts && g.after(p) {
		return status.Error(codes.Unavailable, errLost.Error())
	}
	return stream.SendMsg(&response)
}

func (g *interceptProxy) trackPoll(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.polls = append(g.polls, cancel)
	return ctx
}

// endPolls cancels the worker's polls: a suspended worker would still get
// tasks.
func (g *interceptProxy) endPolls() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, cancel := range g.polls {
		cancel()
	}
}

// rawCodec passes messages through unchanged.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// dial returns a Temporal client that connects through the proxy.
func (g *interceptProxy) dial(s fixture.Server) client.Client {
	s.Helper()
	temporal, err := client.DialContext(s.Context(), client.Options{
		HostPort: g.temporalAddress, Namespace: s.TemporalServer.Namespace,
		Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	require.NoError(s, err)
	s.Cleanup(temporal.Close)
	return temporal
}

// startWorker runs a worker in this process that connects through the proxy.
func (g *interceptProxy) startWorker(s fixture.Server) (stop func()) {
	s.Helper()
	return s.StartWorkerWith(g.dial(s), clientOf(s, g.opsManagerURL), fewPollers)
}

// longRequestTimeout is longer than requests are held back.
const longRequestTimeout = 30 * time.Second

func clientOf(t testing.TB, address string) *opsmanager.Client {
	t.Helper()
	c, err := opsmanager.New(opsmanager.Config{
		BaseURL: address, PublicKey: simulator.DefaultPublicKey, PrivateKey: simulator.DefaultPrivateKey, RequestTimeout: longRequestTimeout,
	})
	require.NoError(t, err)
	return c
}

// resourceName is the last part of a path, or the part before an ID.
func resourceName(urlPath string) string {
	name := path.Base(urlPath)
	if opsmanager.ValidID(name) {
		name = strings.TrimSuffix(path.Base(path.Dir(urlPath)), "s")
	}
	return name
}
