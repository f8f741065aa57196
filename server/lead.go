package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/apiserver"
)

// Several servers may share one external etcd. All of them serve the API; one
// of them, the leader, runs the controllers and holds the leases of Instances.
// With the embedded etcd there is one server, and it leads.

const (
	leaseName     = "fingerpost-controllers"
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
	relayTimeout  = 5 * time.Second
)

// lead says who leads. Its identity is the address at which a server answers
// the others.
type lead struct {
	self   string // host:port
	alone  bool   // embedded store
	leader atomic.Pointer[string]
	began  chan struct{} // closed when this server leads
}

func newLead(self string, alone bool) *lead {
	l := &lead{self: self, alone: alone, began: make(chan struct{})}
	if alone {
		l.leader.Store(&self)
		close(l.began)
	}
	return l
}

// run takes part in the election until ctx ends. A server that loses the lead
// ends: its controllers may be in the middle of something, and a restart is
// the one way to be sure that two never act at once.
func (l *lead) run(ctx context.Context, c kubernetes.Interface) error {
	if l.alone {
		<-ctx.Done()
		return nil
	}
	lost := false
	e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: leaseName}, Client: c.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: l.self},
		},
		LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
		ReleaseOnCancel: true, Name: leaseName,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { close(l.began) },
			OnStoppedLeading: func() { lost = true },
			OnNewLeader:      func(id string) { l.leader.Store(&id) },
		},
	})
	if err != nil {
		return err
	}
	e.Run(ctx)
	if lost && ctx.Err() == nil {
		return errors.New("this server lost the lead of the controllers to another one; start it again to stand by")
	}
	return nil
}

// whenLeading runs f once this server leads.
func (l *lead) whenLeading(f func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-l.began:
			return f(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// relay is the Liveness of a server that may not lead: it hands heartbeats to
// the leader, so that clients may send them to any server.
type relay struct {
	lead   *lead
	local  apiserver.Liveness
	client *http.Client
}

func newRelay(l *lead, local apiserver.Liveness, pki *apiserver.PKI) (apiserver.Liveness, error) {
	if l.alone {
		return local, nil
	}
	cert, err := tls.X509KeyPair(pki.Admin.Cert, pki.Admin.Key)
	if err != nil {
		return nil, fmt.Errorf("the administrator's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pki.CACert)
	return &relay{l, local, &http.Client{Timeout: relayTimeout, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots},
		ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 8,
	}}}, nil
}

// Renew implements apiserver.Liveness.
func (r *relay) Renew(namespace, name, door, id string, now time.Time) (time.Duration, error) {
	leader := r.lead.leader.Load()
	switch {
	case leader == nil:
		return 0, apierrors.NewServiceUnavailable("no server leads yet; send the heartbeat again in a second")
	case *leader == r.lead.self:
		return r.local.Renew(namespace, name, door, id, now)
	}
	u := url.URL{
		Scheme: "https", Host: *leader,
		Path:     "/apis/" + v1alpha1.GroupName + "/v1alpha1/namespaces/" + namespace + "/instances/" + name + "/renew",
		RawQuery: url.Values{"door": {door}, "id": {id}}.Encode(),
	}
	resp, err := r.client.Post(u.String(), "application/json", bytes.NewReader(nil))
	if err != nil {
		return 0, apierrors.NewServiceUnavailable("the leading server " + *leader + " does not answer; send the heartbeat again")
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return 0, apierrors.NewServiceUnavailable("the leading server " + *leader + " does not answer; send the heartbeat again")
	}
	if resp.StatusCode != http.StatusOK {
		var s metav1.Status
		if json.Unmarshal(body, &s) != nil || s.Code == 0 {
			return 0, apierrors.NewServiceUnavailable("the leading server " + *leader + " answered " + resp.Status)
		}
		return 0, apierrors.FromObject(&s)
	}
	var renewal v1alpha1.Renewal
	if err := json.Unmarshal(body, &renewal); err != nil || renewal.TTL == nil {
		return 0, nil
	}
	return renewal.TTL.Duration, nil
}
