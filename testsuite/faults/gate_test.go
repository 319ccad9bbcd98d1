package faults

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
	"keyturn/testsuite/stage"
)

// A worker makes a difference to the world by its messages only: the requests
// that it sends to Ops Manager, and the ends of workflow tasks and activities
// that it reports to Temporal, each of which is some events of the history. So
// before and after each message is every point at which its death, or anything
// else, can matter.

// point is a moment in a rotation.
type point struct {
	number int    // of the message, from 1
	name   string // of the message
	after  bool   // the message has taken effect, and its answer is held back
}

// is tells whether it is the same moment, whatever the message is called: on a
// busy machine, the ends of two activities may or may not share a workflow task.
func (p point) is(other point) bool { return p.number == other.number && p.after == other.after }

func (p point) String() string {
	moment := "before"
	if p.after {
		moment = "after"
	}
	return fmt.Sprintf("%02d-%s-%s", p.number, moment, strings.ReplaceAll(p.name, " ", "-"))
}

// gate stands between a worker and both of its servers.
type gate struct {
	temporalAddress string
	opsManagerURL   string
	// reach is called with each message held up. Where it gives true, the
	// message, or its answer, is lost.
	reach func(point) (lost bool)
	// deliver, if not nil, is called when a task of an activity is about to be
	// given to the worker.
	deliver func()

	mu     sync.Mutex
	passed []message
	polls  []context.CancelFunc
}

// message is one that has come to the gate.
type message struct {
	name string
	at   time.Time
}

func newGate(s stage.Stage, reach func(point) (lost bool)) *gate {
	s.Helper()
	g := &gate{reach: reach}
	g.serveTemporal(s)
	g.serveOpsManager(s)
	return g
}

// messages are those that have come so far.
func (g *gate) messages() []message {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]message(nil), g.passed...)
}

// awaitMessages waits for so many messages, but not for long.
func (g *gate) awaitMessages(n int, atMost time.Duration) {
	for deadline := time.Now().Add(atMost); len(g.messages()) < n && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
}

// arrive counts a message in and tells whether it is lost.
func (g *gate) arrive(name string) (p point, lost bool) {
	g.mu.Lock()
	g.passed = append(g.passed, message{name, time.Now()})
	p = point{number: len(g.passed), name: name}
	g.mu.Unlock()
	return p, g.reached(p)
}

// leave tells whether a message's answer is lost.
func (g *gate) leave(p point) (lost bool) {
	p.after = true
	return g.reached(p)
}

func (g *gate) reached(p point) bool { return g.reach != nil && g.reach(p) }

var errLost = errors.New("lost at the gate")

type pointKey struct{}

func (g *gate) serveOpsManager(s stage.Stage) {
	s.Helper()
	target, err := url.Parse(s.OM.URL)
	require.NoError(s, err)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		// Connections that are used again would be tried again when they are cut.
		Transport: &http.Transport{DisableKeepAlives: true},
		ModifyResponse: func(r *http.Response) error {
			if g.leave(r.Request.Context().Value(pointKey{}).(point)) {
				return errLost
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     log.New(io.Discard, "", 0),
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, lost := g.arrive(r.Method + " " + lastName(r.URL.Path))
		if lost {
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), pointKey{}, p)))
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	s.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	g.opsManagerURL = server.URL
}

func (g *gate) serveTemporal(s stage.Stage) {
	s.Helper()
	const maxMessage = 64 << 20
	upstream, err := grpc.NewClient(s.Server.Address, grpc.WithTransportCredentials(insecure.NewCredentials()),
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

// forward passes a call of Temporal's on; all of them are unary.
func (g *gate) forward(upstream *grpc.ClientConn, stream grpc.ServerStream) error {
	var request, response []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	method, _ := grpc.MethodFromServerStream(stream)
	name := path.Base(method)
	counts := strings.HasPrefix(name, "Respond") && name != "RespondQueryTaskCompleted"
	var p point
	if counts {
		var lost bool
		if p, lost = g.arrive(name); lost {
			return status.Error(codes.Unavailable, errLost.Error())
		}
	}
	ctx := stream.Context()
	if headers, found := metadata.FromIncomingContext(ctx); found {
		ctx = metadata.NewOutgoingContext(ctx, headers)
	}
	if strings.HasPrefix(name, "Poll") {
		ctx = g.countPoll(ctx)
	}
	if err := upstream.Invoke(ctx, method, &request, &response, grpc.ForceCodecV2(rawCodec{})); err != nil {
		return err
	}
	if name == "PollActivityTaskQueue" && len(response) > 0 && g.deliver != nil {
		g.deliver()
	}
	if counts && g.leave(p) {
		return status.Error(codes.Unavailable, errLost.Error())
	}
	return stream.SendMsg(&response)
}

func (g *gate) countPoll(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.polls = append(g.polls, cancel)
	return ctx
}

// endPolls ends the worker's waiting for tasks: one that is frozen would go on
// to be given some.
func (g *gate) endPolls() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, cancel := range g.polls {
		cancel()
	}
}

// rawCodec leaves messages as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// dial is a client of Temporal whose messages pass the gate.
func (g *gate) dial(s stage.Stage) client.Client {
	s.Helper()
	temporal, err := client.DialContext(s.Context(), client.Options{
		HostPort: g.temporalAddress, Namespace: s.Server.Namespace,
		Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	require.NoError(s, err)
	s.Cleanup(temporal.Close)
	return temporal
}

// startWorker runs a worker in this process whose messages pass the gate.
func (g *gate) startWorker(s stage.Stage) (stop func()) {
	s.Helper()
	return s.StartWorkerWith(g.dial(s), clientOf(s, g.opsManagerURL), fewPollers)
}

// patientRequests is a deadline of requests that holding them up does not reach.
const patientRequests = 30 * time.Second

func clientOf(t testing.TB, address string) *opsmanager.Client {
	t.Helper()
	c, err := opsmanager.New(opsmanager.Config{
		BaseURL: address, PublicKey: simulator.DefaultPublicKey, PrivateKey: simulator.DefaultPrivateKey, RequestTimeout: patientRequests,
	})
	require.NoError(t, err)
	return c
}

// lastName is what a path is about: its last part, or the one before an id.
func lastName(urlPath string) string {
	name := path.Base(urlPath)
	if opsmanager.ValidID(name) {
		name = strings.TrimSuffix(path.Base(path.Dir(urlPath)), "s")
	}
	return name
}
