// Command whoami is a web server that says which process answered: what the
// README's tour runs twice.
//
//	GET /         its address and process id
//	GET /healthz  "ok", or 503 after POST /fail
//	POST /fail    be sick; POST /heal: be well again
package main

import (
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address to listen on")
	flag.Parse()
	if err := http.ListenAndServe(*listen, handler(*listen)); err != nil {
		slog.Error("whoami ends", "error", err)
		os.Exit(1)
	}
}

func handler(name string) http.Handler {
	var sick atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "I am %s, process %d\n", name, os.Getpid())
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			http.Error(w, "sick", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("POST /fail", func(http.ResponseWriter, *http.Request) { sick.Store(true) })
	mux.HandleFunc("POST /heal", func(http.ResponseWriter, *http.Request) { sick.Store(false) })
	return mux
}
