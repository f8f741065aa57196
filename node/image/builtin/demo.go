package builtin

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"
)

// Run runs a program until ctx ends. Port 0 is the program's own. What it
// answers with a log line for goes to log.
func Run(ctx context.Context, program string, port int, log io.Writer) error {
	all := Programs()
	i := slices.IndexFunc(all, func(p Program) bool { return p.Name == program })
	if i < 0 || program == shell {
		return fmt.Errorf("demo: no program %q", program)
	}
	if port == 0 {
		port = all[i].Port
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	if program == "pause" {
		<-ctx.Done()
		return nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("demo: %s: %w", program, err)
	}
	fmt.Fprintf(log, "%s listens on port %d\n", program, port)
	if program == "listen" {
		return greet(ctx, l, host)
	}
	s := &http.Server{Handler: logged(Handler(program, host), log), ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		wait, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.Shutdown(wait)
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("demo: %s: %w", program, err)
	}
	<-stopped
	return nil
}

// greet tells every caller who answers, and hangs up.
func greet(ctx context.Context, l net.Listener, host string) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("demo: %w", err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprintf(c, "%s: a stand-in of fingerpost, no database; load the real image with 'fingerpost image pull'\n", host)
		c.Close()
	}
}

// Handler gives the web programs' answers.
func Handler(program, host string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	switch program {
	case "web":
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			page().Execute(w, struct {
				Hostname string
				*http.Request
			}{host, r})
		})
	case "hostnames":
		mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, host) })
	case "default-backend":
		mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, "default backend - 404")
		})
	default:
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "Hostname: %s\nClient: %s\n\n%s %s %s\nHost: %s\n", host, r.RemoteAddr, r.Method, r.URL.RequestURI(), r.Proto, r.Host)
			r.Header.Write(w)
			io.WriteString(w, "\n")
			io.Copy(w, http.MaxBytesReader(w, r.Body, 1<<20))
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "fingerpost-demo")
		w.Header().Set("X-Hostname", host)
		mux.ServeHTTP(w, r)
	})
}

func page() *template.Template {
	return template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html><head><title>Welcome</title></head>
<body>
<h1>Welcome!</h1>
<p>This is {{.Hostname}}, answering {{.Method}} {{.URL.Path}} for {{.Host}}.</p>
<p>You see Fingerpost's stand-in for a web server image. The real one comes with
<code>fingerpost image pull nginx</code> or <code>fingerpost image load FILE</code>.</p>
</body></html>
`))
}

// logged writes a line for each request.
func logged(h http.Handler, w io.Writer) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		from, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "%s - %s %q\n", from, time.Now().UTC().Format(time.RFC3339), r.Method+" "+r.URL.RequestURI())
		h.ServeHTTP(rw, r)
	})
}
