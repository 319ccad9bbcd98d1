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

	"keyturn/worker/metrics"
)

const (
	metricsPath = "/metrics"
	healthPath  = "/healthz"
	readyPath   = "/readyz"
)

const (
	// probeTimeout bounds one request to the worker, from its first byte to the
	// last of its answer.
	probeTimeout = 10 * time.Second
	// idleProbe is how long a scraper's connection is kept.
	idleProbe = 2 * time.Minute
	// maxProbeHeader is far more than any probe sends, in bytes.
	maxProbeHeader = 16 << 10
	// farewell is how long answers under way may take when the worker ends.
	farewell = 3 * time.Second
)

// readListen is the address to listen at; empty = none.
func readListen(env environment) (string, error) {
	address, set := env.LookupEnv(listenVariable)
	if !set {
		return "", nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || strings.ContainsAny(host, "/@ ") {
		return "", wrong(listenVariable, "must be host:port or :port")
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return "", wrong(listenVariable, "the port must be a number from 1 to 65535")
	}
	return address, nil
}

// frontDoor answers probes and scrapes.
type frontDoor struct {
	server *http.Server
	served chan struct{}
}

// listenAt takes the address of KEYTURN_LISTEN. The error is a *settingError.
func listenAt(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, wrong(listenVariable, "can't be listened at: %s", listenProblem(err))
	}
	return listener, nil
}

// open begins to answer.
func open(listener net.Listener, m *monitor, counted *metrics.Metrics, logger *slog.Logger) *frontDoor {
	mux := http.NewServeMux()
	mux.Handle("GET "+metricsPath, counted)
	mux.HandleFunc("GET "+healthPath, func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]bool{"alive": true})
	})
	mux.HandleFunc("GET "+readyPath, func(w http.ResponseWriter, _ *http.Request) {
		now := m.readiness()
		writeJSON(w, statusOf(now), now)
	})
	door := &frontDoor{served: make(chan struct{}), server: &http.Server{
		Handler: mux, ReadTimeout: probeTimeout, WriteTimeout: probeTimeout, IdleTimeout: idleProbe, MaxHeaderBytes: maxProbeHeader,
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug), // of clients that break off
	}}
	go func() {
		defer close(door.served)
		if err := door.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("no more answers to probes and scrapes", "error", err)
		}
	}()
	logger.Info("listening", "address", listener.Addr().String())
	return door
}

// close lets the answers under way end, for a moment.
func (d *frontDoor) close() {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	if d.server.Shutdown(ctx) != nil {
		_ = d.server.Close() // whoever is still there does not read
	}
	<-d.served
}

// listenProblem is without the address.
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
		http.Error(w, "this can't be told", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // whoever asked has gone
}

// askReadiness asks the worker of these settings, on this machine, whether it is
// ready; nil = it is.
func askReadiness(ctx context.Context, env environment) error {
	address, err := readListen(env)
	if err != nil {
		return err
	}
	if address == "" {
		return wrong(listenVariable, "is missing: the worker answers no probes")
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+onThisMachine(address)+readyPath, nil)
	if err != nil {
		return wrong(listenVariable, "must be host:port or :port")
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
	var told readiness
	if json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&told) != nil {
		return fmt.Errorf("not ready: status %d", answer.StatusCode)
	}
	return fmt.Errorf("not ready: %s", told.problems())
}

// problems are the state and what is wrong, for one line.
func (r readiness) problems() string {
	told := []string{r.State}
	for name, c := range r.Checks {
		if !c.OK {
			told = append(told, name+": "+c.Problem)
		}
	}
	slices.Sort(told[1:])
	return strings.Join(told, "; ")
}

// onThisMachine is where a probe finds what listens at the address.
func onThisMachine(address string) string {
	host, port, _ := net.SplitHostPort(address)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
