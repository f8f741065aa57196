package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

// Server is the API server. Client, Informers and Rest reach it in process.
type Server struct {
	// Rest is a client configuration with all rights, without a socket.
	Rest      *restclient.Config
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	// PKI of the server, for kubeconfigs and for the CA in each namespace.
	PKI *PKI

	cfg     *Config
	base    *base
	core    *core
	nodes   *nodeGraph
	generic *genericapiserver.GenericAPIServer
	crds    *apiextensionsapiserver.CustomResourceDefinitions
	ready   chan struct{}
	failed  chan error
	broken  atomic.Bool
	started chan struct{} // every hook has returned
}

// New assembles the server. Nothing is served before Run.
func New(cfg Config) (*Server, error) {
	c := &cfg
	if err := c.validate(); err != nil {
		return nil, err
	}
	scheme, codecs, err := ownScheme()
	if err != nil {
		return nil, err
	}
	b, err := newBase(c, scheme)
	if err != nil {
		return nil, err
	}
	keys, err := serviceaccount.StaticPublicKeysGetter([]any{c.PKI.SAKey.Public()})
	if err != nil {
		return nil, err
	}
	if err := authenticate(b.generic, c.PKI, keys, b.client); err != nil {
		return nil, fmt.Errorf("apiserver: authentication: %w", err)
	}
	nodes, err := newNodeGraph(b.client)
	if err != nil {
		return nil, fmt.Errorf("apiserver: authorization of nodes: %w", err)
	}
	if err := authorize(b.generic, b.informers, nodes); err != nil {
		return nil, fmt.Errorf("apiserver: authorization: %w", err)
	}
	auth, resolver, err := admit(b)
	if err != nil {
		return nil, err
	}
	crds, err := newCRDs(b, auth, resolver)
	if err != nil {
		return nil, err
	}
	r, err := newCore(b, c)
	if err != nil {
		return nil, err
	}
	s, err := b.generic.Complete(b.informers).New("fingerpost", crds.GenericAPIServer)
	if err != nil {
		return nil, fmt.Errorf("apiserver: %w", err)
	}
	s.ShutdownTimeout = stopRequests
	if err := r.install(s, scheme, codecs); err != nil {
		return nil, err
	}
	srv := &Server{
		Rest: b.generic.LoopbackClientConfig, Client: b.client, Informers: b.informers, PKI: c.PKI,
		cfg: c, base: b, core: r, nodes: nodes, generic: s, crds: crds, ready: make(chan struct{}), failed: make(chan error, 1), started: make(chan struct{}),
	}
	return srv, srv.hooks()
}

// hooks are what runs once requests are served; the server is not ready before
// they return.
func (s *Server) hooks() error {
	if err := s.generic.AddPostStartHook("nodes", func(h genericapiserver.PostStartHookContext) error {
		go s.nodes.run(h)
		return nil
	}); err != nil {
		return err
	}
	if err := s.generic.AddPostStartHook("bootstrap", func(h genericapiserver.PostStartHookContext) error {
		// An error returned from a hook would end the process on the spot, before
		// anybody is told why.
		if err := bootstrap(h, s.Client, s.cfg); err != nil {
			s.fail(err)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := s.generic.AddPostStartHook("allocators", func(h genericapiserver.PostStartHookContext) error {
		ports := make(chan struct{})
		go s.core.repairPorts(func() { close(ports) }, stopOf(h))
		r := &repair{
			allocs: s.core.allocs, services: s.Informers.Core().V1().Services().Lister(), addresses: s.Informers.Networking().V1().IPAddresses().Lister(),
			now: time.Now, log: s.cfg.Log.Warn,
		}
		synced := []cache.InformerSynced{s.Informers.Core().V1().Services().Informer().HasSynced, s.Informers.Networking().V1().IPAddresses().Informer().HasSynced}
		s.Informers.Start(h.Done())
		go func() {
			if cache.WaitForCacheSync(h.Done(), synced...) {
				r.run(h)
			}
		}()
		select {
		case <-ports:
		case <-h.Done(): // stopped while it started, which is no error
		}
		return nil
	}); err != nil {
		return err
	}
	return s.generic.AddBootSequenceHealthChecks(allocatorCheck(s.core.allocs))
}

func stopOf(ctx context.Context) chan struct{} {
	stop := make(chan struct{})
	context.AfterFunc(ctx, func() { close(stop) })
	return stop
}

func (s *Server) fail(err error) {
	s.broken.Store(true)
	select {
	case s.failed <- err:
	default:
	}
}

// Ready is closed when every request can be served.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run serves until ctx ends, then drains.
func (s *Server) Run(ctx context.Context) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	prepared := s.generic.PrepareRun()
	if err := publishCRDs(s.generic, s.crds); err != nil {
		return fmt.Errorf("apiserver: %w", err)
	}
	s.base.transport.set(s.generic.Handler)
	beats := make(chan struct{})
	go func() {
		defer close(beats)
		s.base.renewer.beats.run(serving, s.generic.Handler)
	}()
	defer func() { <-beats }()
	defer stop()
	go s.awaitReady(serving)
	defer context.AfterFunc(serving, s.base.stop)()
	ended := make(chan error, 1)
	go func() { ended <- prepared.RunWithContext(serving) }()
	var cause error
	select {
	case err := <-ended:
		return err
	case cause = <-s.failed:
	case <-ctx.Done():
	}
	s.awaitStarted()
	stop()
	if err := <-ended; cause == nil {
		cause = err
	}
	return cause
}

// startPatience bounds the wait for a start to end before the stop begins.
const startPatience = 10 * time.Second

// awaitStarted waits for the end of the start: a hook of Kubernetes that is
// stopped half-way ends the process with nothing cleaned up.
func (s *Server) awaitStarted() {
	t := time.NewTimer(startPatience)
	defer t.Stop()
	select {
	case <-s.started:
	case <-t.C:
	}
}

// readyPoll is how often readiness is looked at during the start.
const readyPoll = 5 * time.Millisecond

func (s *Server) awaitReady(ctx context.Context) {
	t := time.NewTicker(readyPoll)
	defer t.Stop()
	for {
		var code int
		s.Client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).StatusCode(&code)
		if code == http.StatusOK {
			close(s.started)
			if s.broken.Load() {
				return
			}
			close(s.ready)
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
	if err := publishOwnV3(s.generic, s.crds.GenericAPIServer.Handler.NonGoRestfulMux); err != nil {
		s.cfg.Log.Warn("kubectl explain will not know CustomResourceDefinitions", "error", err)
	}
}
