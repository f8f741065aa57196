package ingress

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/record"

	"github.com/fingerpost/fingerpost/catalog"
)

// reporter tells the owners of Ingresses what became of them: Events, and the
// addresses in the status. It has a goroutine of its own, so that a slow API
// server holds nothing up.
type reporter struct {
	c      *Config
	lister networkinglisters.IngressLister
	log    *slog.Logger
	wake   chan struct{}

	mu      sync.Mutex
	ours    map[catalog.Key]bool // false: it was
	looks   map[catalog.Key]struct{}
	notes   map[catalog.Key][]Problem // all that an Ingress has, if that changed
	ripe    time.Time                 // when notes are told
	leases  *leases
	said    map[catalog.Key][]Problem
	publish []networkingv1.IngressLoadBalancerIngress // what was written last
}

const (
	// reportGather is how long changes wait for each other.
	reportGather = 20 * time.Millisecond
	// reportRipe is how long a problem must last to be told: an Ingress and what it
	// names come by watches of their own, in any order.
	reportRipe = 300 * time.Millisecond
	// reportWriters write status at the same time.
	reportWriters = 16
	// reportAgain is the wait after a status that could not be written.
	reportAgain = time.Second
)

func newReporter(c *Config) *reporter {
	return &reporter{c: c, log: c.Log, wake: make(chan struct{}, 1), ours: map[catalog.Key]bool{}, looks: map[catalog.Key]struct{}{},
		notes: map[catalog.Key][]Problem{}, said: map[catalog.Key][]Problem{}, leases: newLeases(c)}
}

func (r *reporter) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// look notes that the status of an Ingress should be looked at.
func (r *reporter) look(k catalog.Key) {
	r.mu.Lock()
	r.looks[k] = struct{}{}
	r.mu.Unlock()
	r.poke()
}

// tell takes over what a flush found.
func (r *reporter) tell(st *state, problems map[catalog.Key][]Problem) {
	r.mu.Lock()
	for k := range st.redrafted {
		_, is := st.drafts[k]
		if is || r.ours[k] {
			r.ours[k] = is
		}
		if st.objects.Ingresses[k] == nil {
			delete(r.ours, k)
		}
		r.looks[k] = struct{}{}
	}
	clear(st.redrafted)
	if len(r.notes) == 0 {
		r.ripe = time.Now().Add(reportRipe)
	}
	for k, p := range problems {
		r.notes[k] = p
	}
	r.mu.Unlock()
	r.poke()
}

func (r *reporter) run(ctx context.Context) {
	events := r.c.Events
	if events == nil {
		b := record.NewBroadcaster(record.WithContext(ctx))
		b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: r.c.Client.CoreV1().Events("")})
		defer b.Shutdown()
		events = b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "fingerpost-gateway", Host: r.c.Name})
	}
	beat := time.NewTicker(leaseEvery)
	defer beat.Stop()
	defer r.leases.leave()
	r.leases.beat(ctx)
	for ctx.Err() == nil {
		var retry <-chan time.Time
		if again := r.round(ctx, events); again > 0 {
			retry = time.After(again)
		}
		select {
		case <-ctx.Done():
		case <-retry:
		case <-beat.C:
			r.leases.beat(ctx)
		case <-r.wake:
			t := time.NewTimer(reportGather)
			select {
			case <-ctx.Done():
			case <-t.C:
			}
			t.Stop()
		}
	}
}

// round writes what is to be written; again: when there is more, 0: nothing is
// left.
func (r *reporter) round(ctx context.Context, events record.EventRecorder) (again time.Duration) {
	want := addresses(r.leases.addresses())
	r.mu.Lock()
	all := r.publish == nil || !reflect.DeepEqual(want, r.publish)
	todo := map[catalog.Key]bool{}
	if all {
		for k, is := range r.ours {
			todo[k] = is
		}
	}
	for k := range r.looks {
		if is, known := r.ours[k]; known {
			todo[k] = is
		}
	}
	notes := r.notes
	if len(notes) > 0 {
		again = max(time.Until(r.ripe), 0)
	}
	if again > 0 {
		notes = nil
	} else {
		r.notes = map[catalog.Key][]Problem{}
	}
	r.looks = map[catalog.Key]struct{}{}
	r.mu.Unlock()
	r.publish = want

	leads := r.leases.leads()
	r.events(events, notes, leads)
	if len(r.c.Publish) == 0 || !leads {
		return again
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	slots := make(chan struct{}, reportWriters)
	for k, is := range todo {
		in, err := r.lister.Ingresses(k.Namespace).Get(k.Name)
		if err != nil {
			continue
		}
		status := want
		if !is {
			status = []networkingv1.IngressLoadBalancerIngress{}
		}
		if sameStatus(in.Status.LoadBalancer.Ingress, status) {
			r.settled(k, is)
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			err := r.write(ctx, k, status)
			switch {
			case err == nil || apierrors.IsNotFound(err):
				r.settled(k, is)
			case ctx.Err() == nil:
				r.log.Warn("the status of an Ingress could not be written", "ingress", k.String(), "error", err)
				mu.Lock()
				if again == 0 {
					again = reportAgain
				}
				mu.Unlock()
				r.mu.Lock()
				r.looks[k] = struct{}{}
				r.mu.Unlock()
			}
		})
	}
	wg.Wait()
	return again
}

// settled forgets an Ingress that is not ours any more, once that is written.
func (r *reporter) settled(k catalog.Key, is bool) {
	if is {
		return
	}
	r.mu.Lock()
	if now, known := r.ours[k]; known && !now {
		delete(r.ours, k)
	}
	r.mu.Unlock()
}

func sameStatus(have, want []networkingv1.IngressLoadBalancerIngress) bool {
	return slices.EqualFunc(have, want, func(a, b networkingv1.IngressLoadBalancerIngress) bool {
		return a.IP == b.IP && a.Hostname == b.Hostname
	})
}

func (r *reporter) write(ctx context.Context, k catalog.Key, status []networkingv1.IngressLoadBalancerIngress) error {
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": status}}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err = r.c.Client.NetworkingV1().Ingresses(k.Namespace).Patch(ctx, k.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// addresses sorts what is published into addresses and names.
func addresses(all []string) []networkingv1.IngressLoadBalancerIngress {
	out := []networkingv1.IngressLoadBalancerIngress{}
	for _, a := range all {
		if ip, err := netip.ParseAddr(a); err == nil {
			out = append(out, networkingv1.IngressLoadBalancerIngress{IP: ip.String()})
		} else {
			out = append(out, networkingv1.IngressLoadBalancerIngress{Hostname: a})
		}
	}
	return out
}

// events tells each cause once: what an Ingress had before is not told again.
func (r *reporter) events(events record.EventRecorder, notes map[catalog.Key][]Problem, leads bool) {
	keys := make([]catalog.Key, 0, len(notes))
	for k := range notes {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compareKeys)
	for _, k := range keys {
		old := r.said[k]
		if len(notes[k]) == 0 {
			delete(r.said, k)
			continue
		}
		r.said[k] = notes[k]
		in, err := r.lister.Ingresses(k.Namespace).Get(k.Name)
		if err != nil {
			continue
		}
		for _, p := range notes[k] {
			if slices.Contains(old, p) {
				continue
			}
			level := slog.LevelInfo
			if p.Type == corev1.EventTypeWarning {
				level = slog.LevelWarn
			}
			r.log.Log(context.Background(), level, p.Message, "ingress", k.String(), "reason", p.Reason)
			if leads {
				events.Event(in, p.Type, p.Reason, p.Message)
			}
		}
	}
}
