//go:build linux

package e2e

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"

	"github.com/gorilla/websocket"
)

// programs are what tests start, register and kill.
var programs = map[string]func(listen, name string) error{"web": web, "udpecho": udpEcho}

func program(name string, args []string) int {
	fs := flag.NewFlagSet(name, flag.ExitOnError)
	listen := fs.String("listen", "127.0.0.1:8080", "address to listen on")
	as := fs.String("name", "", "what it answers (default its address)")
	_ = fs.Parse(args)
	if *as == "" {
		*as = *listen
	}
	if err := programs[name](*listen, *as); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// web answers "name pid" and can be made sick. /env shows its environment.
func web(listen, name string) error {
	var sick atomic.Bool
	var mu sync.Mutex
	shown := make(chan struct{}) // of the page that was asked for last
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "%s %d\n", name, os.Getpid()) })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			http.Error(w, "sick", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /env", func(w http.ResponseWriter, _ *http.Request) {
		for _, e := range os.Environ() {
			fmt.Fprintln(w, e)
		}
	})
	mux.HandleFunc("GET /page", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		shown = make(chan struct{})
		mu.Unlock()
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, page)
	})
	mux.HandleFunc("GET /echo", func(w http.ResponseWriter, r *http.Request) {
		c, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			kind, data, err := c.ReadMessage()
			if string(data) == "shown" {
				mu.Lock()
				defer mu.Unlock()
				select {
				case <-shown:
				default:
					close(shown)
				}
				return
			}
			if err != nil || c.WriteMessage(kind, append([]byte(name+" heard "), data...)) != nil {
				return
			}
		}
	})
	// The page has loaded when it has shown what it heard.
	mux.HandleFunc("GET /shown", func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		done := shown
		mu.Unlock()
		select {
		case <-done:
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /fail", func(http.ResponseWriter, *http.Request) { sick.Store(true) })
	mux.HandleFunc("POST /heal", func(http.ResponseWriter, *http.Request) { sick.Store(false) })
	return http.ListenAndServe(listen, mux)
}

// page opens a WebSocket to where it came from, and shows what it hears there.
const page = `<!doctype html><title>page</title><body><p id="where"></p><p id="heard"></p><img src="/shown"><script>
document.getElementById("where").textContent = "loaded from " + location.href
const ws = new WebSocket(location.origin.replace("http", "ws") + "/echo")
ws.onopen = () => ws.send("hello")
ws.onmessage = e => { document.getElementById("heard").textContent = e.data; ws.send("shown") }
</script>`

// udpEcho answers each datagram with its name and the datagram.
func udpEcho(listen, name string) error {
	c, err := net.ListenPacket("udp", listen)
	if err != nil {
		return err
	}
	buf := make([]byte, 65535)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo([]byte(name+" "+string(buf[:n])), from); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}
