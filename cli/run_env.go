package cli

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/env"
)

const (
	envFirstWait = 2 * time.Second        // for the server, before the first process starts
	envWait      = 300 * time.Millisecond // before a later one: a restart must be quick
	envTimeout   = 5 * time.Second        // of the request itself
)

// serviceEnv gives the variables of the services of one namespace. It reads
// Services only, once per start of a process: a catalog that follows every
// endpoint would cost more than the process.
type serviceEnv struct {
	client    kubernetes.Interface
	namespace string
	log       *slog.Logger

	mu    sync.Mutex
	known []string // as last read
	read  bool
	fetch chan struct{} // closed when the read that is under way ends; nil: none
}

func newServiceEnv(conn *rest.Config, namespace string, log *slog.Logger) (*serviceEnv, error) {
	c, err := kubernetes.NewForConfig(conn)
	if err != nil {
		return nil, exitWith(ExitError, "%w", err)
	}
	return &serviceEnv{client: c, namespace: namespace, log: log}, nil
}

// get gives the variables as they are now or, when the server takes its time,
// as they were.
func (s *serviceEnv) get() []string {
	s.mu.Lock()
	if s.fetch == nil {
		s.fetch = make(chan struct{})
		go s.refresh(s.fetch)
	}
	patience, fetched := envFirstWait, s.fetch
	if s.read {
		patience = envWait
	}
	s.read = true // the long wait is for the first time only
	s.mu.Unlock()

	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-fetched:
	case <-t.C:
		s.log.Warn("the server does not answer: the process is started with the services known before in its environment")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known
}

func (s *serviceEnv) refresh(done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), envTimeout)
	defer cancel()
	vars, err := s.load(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.known = vars
	} else {
		s.log.Debug("services could not be read for the environment", "error", err)
	}
	s.fetch = nil
	close(done)
}

func (s *serviceEnv) load(ctx context.Context) ([]string, error) {
	list, err := s.client.CoreV1().Services(s.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	services := list.Items
	if s.namespace != metav1.NamespaceDefault {
		// Every process is told where the API is, whatever its namespace.
		api, err := s.client.CoreV1().Services(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
		if err == nil {
			services = append(services, *api)
		} else if !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
			return nil, err
		}
	}
	c := catalog.New(nil)
	c.Update(func(t *catalog.Txn) {
		for i := range services {
			t.PutService(addressed(&services[i]))
		}
	})
	return env.Vars(c.Snapshot(), s.namespace), nil
}

// addressed is as much of a Service as the variables tell.
func addressed(in *corev1.Service) *catalog.Service {
	out := &catalog.Service{
		Key:  catalog.Key{Namespace: in.Namespace, Name: in.Name},
		Type: catalog.Type(in.Spec.Type), Headless: in.Spec.ClusterIP == corev1.ClusterIPNone,
	}
	for _, ip := range in.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(ip); err == nil {
			out.ClusterIPs = append(out.ClusterIPs, a)
		}
	}
	for _, p := range in.Spec.Ports {
		out.Ports = append(out.Ports, catalog.Port{Name: p.Name, Protocol: catalog.Protocol(p.Protocol), Port: uint16(p.Port)})
	}
	return out
}
