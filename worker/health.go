package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"keyturn/internal/setting"
	"keyturn/worker/metrics"
)

const (
	metricsPath = "/metrics"
	healthPath  = "/healthz"
	readyPath   = "/readyz"
	headsPath   = "/ledger/heads"
)

const (
	// probeTimeout bounds one request to the worker, from its first byte to the
	// last byte of the response.
	probeTimeout = 10 * time.Second
	// idleTimeout is how long an idle connection is kept.
	idleTimeout = 2 * time.Minute
	// maxProbeHeader is in bytes, far more than any probe sends.
	maxProbeHeader = 16 << 10
	// shutdownTimeout is how long responses in progress may take when the worker ends.
	shutdownTimeout = 3 * time.Second
)

// readListen returns the address to listen on; empty = none.
func readListen(env setting.Environment) (string, error) {
	address, set := env.LookupEnv(listenVariable)
	if !set {
		return "", nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || strings.ContainsAny(host, "/@ ") {
		return "", setting.Errorf(listenVariable, "must be host:port or :port")
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return "", setting.Errorf(listenVariable, "the port must be a number from 1 to 65535")
	}
	return address, nil
}

// httpServer serves probes and metrics.
type httpServer struct {
	server *http.Server
	served chan struct{}
}

// listenAt listens on the address of KEYTURN_LISTEN. The error is a *setting.Error.
func listenAt(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, setting.Errorf(listenVariable, "cannot listen on this address: %s", listenProblem(err))
	}
	return listener, nil
}

// serve starts the server.
func serve(listener net.Listener, m *monitor, counted *metrics.Metrics, logger *slog.Logger) *httpServer {
	mux := http.NewServeMux()
	mux.Handle("GET "+metricsPath, counted)
	mux.HandleFunc("GET "+healthPath, func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]bool{"alive": true})
	})
	mux.HandleFunc("GET "+readyPath, func(w http.ResponseWriter, _ *http.Request) {
		now := m.readiness()
		writeJSON(w, statusOf(now), now)
	})
	mux.HandleFunc("GET "+headsPath, func(w http.ResponseWriter, _ *http.Request) {
		if heads := m.settings.ledger.heads(); heads != nil {
			writeJSON(w, http.StatusOK, heads)
			return
		}
		http.Error(w, "there is no ledger, or it was not read yet", http.StatusNotFound)
	})
	door := &httpServer{served: make(chan struct{}), server: &http.Server{
		Handler: mux, ReadTimeout: probeTimeout, WriteTimeout: probeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxProbeHeader,
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug), // of clients that disconnect
	}}
	go func() {
		defer close(door.served)
		if err := door.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("HTTP server stopped", "error", err)
		}
	}()
	logger.Info("listening", "address", listener.Addr().String())
	return door
}

// close waits a moment for responses in progress.
func (d *httpServer) close() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if d.server.Shutdown(ctx) != nil {
		_ = d.server.Close() // the remaining clients do not read
	}
	<-d.served
}

// listenProblem returns the error without the address.
func listenProblem(err error) string {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number.Error()
	}
	var opErr *net.OpError
	if errors.As(err, &opErr) {
		return opErr.Err.Error()
	}
	return err.Error()
}

func statusOf(r readiness) int {
	if r.Ready {
		return http.StatusOK
	}
	return http.StatusServiceUnavailable
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // the client has gone
}

// checkHealth requests /readyz of the local worker with these settings; nil = it
// is ready.
func checkHealth(ctx context.Context, env setting.Environment) error {
	address, err := readListen(env)
	if err != nil {
		return err
	}
	if address == "" {
		return setting.Errorf(listenVariable, "is required: without it, the worker serves no probes")
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+localAddress(address)+readyPath, nil)
	if err != nil {
		return setting.Errorf(listenVariable, "must be host:port or :port")
	}
	transport := &http.Transport{Proxy: nil, DisableKeepAlives: true}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("the worker does not answer: %s", listenProblem(err))
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	var status readiness
	if json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&status) != nil {
		return fmt.Errorf("not ready: status %d", answer.StatusCode)
	}
	return fmt.Errorf("not ready: %s", status.problems())
}

// problems returns the state and all problems in one line.
func (r readiness) problems() string {
	texts := []string{r.State}
	for name, c := range r.Checks {
		if !c.OK {
			texts = append(texts, name+": "+c.Problem)
		}
	}
	slices.Sort(texts[1:])
	return strings.Join(texts, "; ")
}

// localAddress returns where a local probe reaches a server on the address.
func localAddress(address string) string {
	host, port, _ := net.SplitHostPort(address)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
