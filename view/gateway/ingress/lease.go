package ingress

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Each gateway has a Lease with its addresses in an annotation and renews it.
// Who is alive is told by Leases that move, not by clocks. Of the living the one
// with the lowest name leads: it writes status and Events. There is nothing to
// elect, and for the seconds in which two think that they lead they write the
// same.
const (
	leasePrefix     = "fingerpost-gateway-"
	leaseLabel      = "fingerpost.dev/gateway"
	leaseAnnotation = "fingerpost.dev/gateway-addresses"
	leaseEvery      = 3 * time.Second
	leaseLife       = 12 * time.Second
)

type leases struct {
	c      *Config
	seen   map[string]*seen // by name of the Lease
	refuse bool             // Leases may not be read or written: we are alone
	told   bool
}

type seen struct {
	renewed   time.Time // as it stands there
	at        time.Time // by our clock, when it moved
	addresses []string
}

func newLeases(c *Config) *leases { return &leases{c: c, seen: map[string]*seen{}} }

// own is the name of our Lease. Two gateways on one machine have two.
func (l *leases) own() string {
	name := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' {
			return c
		}
		return '-'
	}, strings.ToLower(l.c.Name))
	h := fnv.New32a()
	for _, a := range l.c.Publish {
		_, _ = h.Write([]byte(a + ","))
	}
	return fmt.Sprintf("%s-%08x", strings.TrimRight(leasePrefix+name, "-."), h.Sum32())
}

// beat renews our Lease and looks at the others'.
func (l *leases) beat(ctx context.Context) {
	if len(l.c.Publish) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaseEvery)
	defer cancel()
	err := l.renew(ctx)
	if err == nil {
		err = l.read(ctx)
	}
	l.refuse = apierrors.IsForbidden(err)
	if err != nil && !l.told {
		l.told = true
		l.c.Log.Warn("the Leases of gateways cannot be kept: this one thinks that it is alone", "error", err)
	} else if err == nil {
		l.told = false
	}
}

func (l *leases) renew(ctx context.Context) error {
	api := l.c.Client.CoordinationV1().Leases(l.c.LeaseNamespace)
	now := metav1.NewMicroTime(l.c.Now())
	life := int32(leaseLife / time.Second)
	lease, err := api.Get(ctx, l.own(), metav1.GetOptions{})
	create := apierrors.IsNotFound(err)
	if create {
		lease, err = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: l.own(), Namespace: l.c.LeaseNamespace}}, nil
	}
	if err != nil {
		return err
	}
	lease = lease.DeepCopy()
	if lease.Labels == nil {
		lease.Labels = map[string]string{}
	}
	if lease.Annotations == nil {
		lease.Annotations = map[string]string{}
	}
	lease.Labels[leaseLabel] = "true"
	lease.Annotations[leaseAnnotation] = strings.Join(l.c.Publish, ",")
	lease.Spec.HolderIdentity, lease.Spec.RenewTime, lease.Spec.LeaseDurationSeconds = &l.c.Name, &now, &life
	if create {
		_, err = api.Create(ctx, lease, metav1.CreateOptions{})
	} else {
		_, err = api.Update(ctx, lease, metav1.UpdateOptions{})
	}
	return err
}

func (l *leases) read(ctx context.Context) error {
	list, err := l.c.Client.CoordinationV1().Leases(l.c.LeaseNamespace).List(ctx, metav1.ListOptions{LabelSelector: leaseLabel + "=true"})
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for i := range list.Items {
		o := &list.Items[i]
		there[o.Name] = true
		s := l.seen[o.Name]
		if s == nil {
			s = &seen{}
			l.seen[o.Name] = s
		}
		if o.Spec.RenewTime != nil && !o.Spec.RenewTime.Equal(&metav1.MicroTime{Time: s.renewed}) {
			s.renewed, s.at = o.Spec.RenewTime.Time, l.c.Now()
		}
		s.addresses = strings.FieldsFunc(o.Annotations[leaseAnnotation], func(c rune) bool { return c == ',' })
	}
	for name := range l.seen {
		if !there[name] {
			delete(l.seen, name)
		}
	}
	return nil
}

func (l *leases) alive(s *seen) bool { return l.c.Now().Sub(s.at) < leaseLife }

// leads says whether we write.
func (l *leases) leads() bool {
	if l.refuse {
		return true
	}
	own := l.own()
	for name, s := range l.seen {
		if name < own && l.alive(s) {
			return false
		}
	}
	return true
}

// addresses are those of all that live, ours always.
func (l *leases) addresses() []string {
	all := slices.Clone(l.c.Publish)
	if !l.refuse {
		for _, s := range l.seen {
			if l.alive(s) {
				all = append(all, s.addresses...)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// leave removes our Lease, so that the others need not wait.
func (l *leases) leave() {
	if len(l.c.Publish) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = l.c.Client.CoordinationV1().Leases(l.c.LeaseNamespace).Delete(ctx, l.own(), metav1.DeleteOptions{})
}
