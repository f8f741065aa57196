package stream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/node/runtime"
)

// Container is what a stream needs to know of one.
type Container struct {
	ID      runtime.ContainerID
	LogPath string // the file may be missing: nothing was written
	// Running says whether the log may still grow.
	Running func() bool
}

// Pods finds what streams are asked for. Errors that are ErrNotFound become
// 404, others 400, with their text.
type Pods interface {
	// List gives the pods of this node.
	List() []*corev1.Pod
	// Container finds a container; an empty uid takes any pod of that name.
	// Previous asks for the run before the last one.
	Container(namespace, pod, uid, container string, previous bool) (Container, error)
	// Dial connects to a TCP port of the pod as seen from inside of it.
	Dial(ctx context.Context, namespace, pod, uid string, port uint16) (net.Conn, error)
}

// ErrNotFound: this node has no such pod or container.
var ErrNotFound = errors.New("not on this node")

// Config of a Server.
type Config struct {
	Listener net.Listener
	// Certificate is asked for at each handshake, so that it can be renewed.
	Certificate func() (*tls.Certificate, error)
	// ClientCA has signed the certificates of those who may come.
	ClientCA *x509.CertPool
	// Users and Groups: one of them must be in a certificate.
	Users, Groups []string
	Pods          Pods
	Streamer      runtime.Streamer
	// IdleTimeout ends a stream on which nothing happens; 4 h if 0.
	IdleTimeout time.Duration
	Log         *slog.Logger
}

// Server serves the port of a node.
type Server struct {
	cfg  Config
	http *http.Server
	ctx  context.Context // ends streams when the server stops
	stop context.CancelFunc
}

// New makes a server; Run serves.
func New(cfg Config) (*Server, error) {
	if cfg.Listener == nil || cfg.Certificate == nil || cfg.ClientCA == nil || cfg.Pods == nil || cfg.Streamer == nil {
		return nil, errors.New("node/stream: listener, certificate, client CA, pods and streamer are needed")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = 4 * time.Hour
	}
	s := &Server{cfg: cfg}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:           s.guard(s.routes()),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       90 * time.Second,
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: cfg.ClientCA,
			// Streams take over the connection, which HTTP/2 has no way for.
			NextProtos:     []string{"http/1.1"},
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cfg.Certificate() },
		},
	}
	return s, nil
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		s.stop()
		_ = s.http.Close()
	})
	defer stop()
	err := s.http.ServeTLS(s.cfg.Listener, "", "")
	if errors.Is(err, http.ErrServerClosed) && ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("node/stream: serve on %s: %w", s.cfg.Listener.Addr(), err)
}

// guard lets in whom the configuration names.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			http.Error(w, "a client certificate is needed", http.StatusUnauthorized)
			return
		}
		who := r.TLS.PeerCertificates[0].Subject
		allowed := slices.Contains(s.cfg.Users, who.CommonName) ||
			slices.ContainsFunc(who.Organization, func(g string) bool { return slices.Contains(s.cfg.Groups, g) })
		if !allowed {
			http.Error(w, fmt.Sprintf("%q may not use the port of a node: ask the API server", who.CommonName), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	for path, h := range map[string]http.HandlerFunc{
		"/exec/{namespace}/{pod}/{container}":         s.exec,
		"/exec/{namespace}/{pod}/{uid}/{container}":   s.exec,
		"/attach/{namespace}/{pod}/{container}":       s.attach,
		"/attach/{namespace}/{pod}/{uid}/{container}": s.attach,
		"/portForward/{namespace}/{pod}":              s.portForward,
		"/portForward/{namespace}/{pod}/{uid}":        s.portForward,
	} {
		mux.HandleFunc("GET "+path, h)  // WebSocket
		mux.HandleFunc("POST "+path, h) // SPDY
	}
	return mux
}

func (s *Server) pods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
	for _, p := range s.cfg.Pods.List() {
		list.Items = append(list.Items, *p)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(&list)
}

// find gives the container of a request, or answers with why not.
func (s *Server) find(w http.ResponseWriter, r *http.Request, previous bool) (Container, bool) {
	c, err := s.cfg.Pods.Container(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("uid"), r.PathValue("container"), previous)
	if err != nil {
		refuse(w, err)
	}
	return c, err == nil
}

func refuse(w http.ResponseWriter, err error) {
	code := http.StatusBadRequest
	if errors.Is(err, ErrNotFound) || errors.Is(err, runtime.ErrNotFound) {
		code = http.StatusNotFound
	}
	http.Error(w, err.Error(), code)
}
