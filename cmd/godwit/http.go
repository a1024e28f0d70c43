package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/godwitmq/godwit/core"
)

// A readiness says whether clients are served and, if not, why. The zero value
// is a broker that starts.
type readiness struct {
	why   atomic.Pointer[string]
	store atomic.Pointer[core.Store] // once it is open
}

// ready is the reason that is none.
const ready = ""

func (r *readiness) set(why string) { r.why.Store(&why) }

func (r *readiness) get() string {
	if why := r.why.Load(); why != nil {
		return *why
	}
	return "starting"
}

// newHTTP makes the server of /healthz (the process is up) and /readyz (clients
// are served; 503 with the reason if not) and /metrics.
func newHTTP(r *readiness) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := r.get(); why != ready {
			answer(w, http.StatusServiceUnavailable, "not ready: "+why)
			return
		}
		answer(w, http.StatusOK, "ready")
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		store := r.store.Load()
		if store == nil {
			answer(w, http.StatusServiceUnavailable, "not ready: "+r.get())
			return
		}
		writeMetrics(w, *store)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, "godwit "+versionText()+"\n/healthz  the process is up\n/readyz   clients are served\n/metrics  what is counted, for Prometheus")
	})
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	fmt.Fprintln(w, text)
}

// serveHTTP serves on l until the returned function is called.
func serveHTTP(l net.Listener, s *http.Server, lost func(error)) (closeHTTP func(context.Context) error) {
	done := make(chan struct{})
	go func() { // closeHTTP waits for it
		defer close(done)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			lost(err)
		}
	}()
	return func(ctx context.Context) error {
		err := s.Shutdown(ctx)
		<-done
		return err
	}
}
