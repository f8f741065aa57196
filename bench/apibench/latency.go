package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fingerpost/fingerpost/bench/rig"
	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/door/kube"
)

const (
	// between changes, so that each finds a server at rest.
	breath = 5 * time.Millisecond
	// patience with one change.
	patience = 5 * time.Second
)

// way is how long changes took to be seen somewhere: from before the write was
// sent, and from when it was acknowledged. Seen before the acknowledgement
// counts as 0 in the latter.
type way struct{ sent, acked durations }

func (w *way) add(began, acked, seen time.Time) {
	w.sent = append(w.sent, seen.Sub(began))
	w.acked = append(w.acked, max(0, seen.Sub(acked)))
}

func (b *bench) tell(who side, what string, w *way, opts ...opt) {
	part := fmt.Sprintf("a change is seen, at %d × %d, from sending the write", b.services, perService)
	b.add(who, part, what+": p50", "ms", ms(w.sent.at(0.5)))
	b.add(who, part, what+": p99", "ms", ms(w.sent.at(0.99)), opts...)
	if last := w.acked.at(1); last > 0 {
		b.add(who, part, what+": p99 from the acknowledgement", "ms", ms(w.acked.at(0.99)))
	}
}

// latency measures how long changes of a loaded server take to be seen. What
// is watched is asked for by this process.
func (b *bench) latency(ctx context.Context, who side, s *rig.Server) error {
	if err := s.Settle(ctx, 20*time.Second); err != nil {
		return err
	}
	if err := b.latencyWatch(ctx, who, s); err != nil {
		return fmt.Errorf("latency to watches: %w", err)
	}
	if s.DNS != "" {
		if err := b.latencyDNS(ctx, who, s); err != nil {
			return fmt.Errorf("latency to DNS: %w", err)
		}
	}
	if s.Node != "" {
		if err := b.latencyVIP(ctx, who, s); err != nil {
			return fmt.Errorf("latency to virtual IPs: %w", err)
		}
	}
	return nil
}

// sighting is the moment at which a service was seen changed.
type sighting struct {
	name string
	at   time.Time
}

// latencyWatch: an endpoint goes out in its slice; it is seen by a watch, and in
// a catalog that door/kube fills from the server.
func (b *bench) latencyWatch(ctx context.Context, who side, s *rig.Server) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	watched, err := b.watchSlices(ctx, &wg, s)
	if err != nil {
		return err
	}
	inCatalog, err := b.followCatalog(ctx, &wg, s)
	if err != nil {
		return err
	}
	// That everything was just read by the two above is not what is measured.
	if err := s.Settle(ctx, 10*time.Second); err != nil {
		return err
	}
	c, err := s.Client()
	if err != nil {
		return err
	}
	defer c.CloseIdleConnections()
	var toWatch, toCatalog, write way
	no := false
	for i := range min(b.changes, b.services) {
		if err := rig.Sleep(ctx, breath); err != nil {
			return err
		}
		changed := slice(i)
		changed.Endpoints[0].Conditions = discoveryv1.EndpointConditions{Ready: &no, Serving: &no}
		body := encoded(changed)
		began := time.Now()
		if err := send(ctx, c, http.MethodPut, s.Rest.Host+slicesPath+"/"+changed.Name, asProtobuf, nil, body); err != nil {
			return err
		}
		acked := time.Now()
		write.add(began, acked, acked)
		for _, x := range []struct {
			seen chan sighting
			way  *way
		}{{watched, &toWatch}, {inCatalog, &toCatalog}} {
			at, err := await(ctx, x.seen, serviceName(i))
			if err != nil {
				return err
			}
			x.way.add(began, acked, at)
		}
	}
	b.tell(who, "EndpointSlice write → acknowledged", &write)
	b.tell(who, "EndpointSlice write → a watch", &toWatch)
	b.tell(who, "EndpointSlice write → catalog (door/kube)", &toCatalog, target(10))
	return nil
}

func await(ctx context.Context, seen chan sighting, name string) (time.Time, error) {
	late := time.After(patience)
	for {
		select {
		case x := <-seen:
			if x.name == name {
				return x.at, nil
			}
		case <-late:
			return time.Time{}, fmt.Errorf("the change of %s was not seen after %s", name, patience)
		case <-ctx.Done():
			return time.Time{}, context.Cause(ctx)
		}
	}
}

// watchSlices watches as an informer does, without its cache.
func (b *bench) watchSlices(ctx context.Context, wg *sync.WaitGroup, s *rig.Server) (chan sighting, error) {
	cfg := rest.CopyConfig(s.Rest)
	cfg.ContentType, cfg.AcceptContentTypes = asProtobuf, asProtobuf
	h, err := rig.HTTPClient(cfg)
	if err != nil {
		return nil, err
	}
	c, err := kubernetes.NewForConfigAndClient(cfg, h)
	if err != nil {
		return nil, err
	}
	from, err := c.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, err
	}
	w, err := c.DiscoveryV1().EndpointSlices(namespace).Watch(ctx, metav1.ListOptions{ResourceVersion: from.ResourceVersion})
	if err != nil {
		return nil, err
	}
	seen := make(chan sighting, 100)
	wg.Go(func() {
		defer w.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case e, ok := <-w.ResultChan():
				if !ok {
					return
				}
				if x, ok := e.Object.(*discoveryv1.EndpointSlice); ok {
					seen <- sighting{x.Labels[discoveryv1.LabelServiceName], time.Now()}
				}
			}
		}
	})
	return seen, nil
}

// followCatalog fills a catalog and tells of services with an endpoint out.
func (b *bench) followCatalog(ctx context.Context, wg *sync.WaitGroup, s *rig.Server) (chan sighting, error) {
	cat := catalog.New(nil)
	door, err := kube.New(kube.Config{Rest: s.Rest, Catalog: cat})
	if err != nil {
		return nil, err
	}
	wg.Go(func() { _ = door.Run(ctx) })
	select {
	case <-door.Synced():
	case <-time.After(30 * time.Second):
		return nil, errors.Join(errors.New("the catalog is not filled after 30 s"), door.Trouble())
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if services, endpoints := cat.Snapshot().Len(); services < b.services || endpoints < b.services*perService {
		return nil, fmt.Errorf("the catalog holds %d services and %d endpoints, too few", services, endpoints)
	}
	sub := cat.Subscribe()
	sub.TryNext()
	seen := make(chan sighting, 100)
	wg.Go(func() {
		defer sub.Close()
		for {
			batch, err := sub.Next(ctx)
			if err != nil {
				return
			}
			now := time.Now()
			for _, ch := range batch.Changes {
				if ch.New != nil && anyOut(ch.New) {
					seen <- sighting{ch.Key.Name, now}
				}
			}
		}
	})
	return seen, nil
}

func anyOut(e *catalog.Entry) bool {
	for i := range e.Endpoints {
		if !e.Endpoints[i].Ready && e.Endpoints[i].Addr != (netip.Addr{}) {
			return true
		}
	}
	return false
}
