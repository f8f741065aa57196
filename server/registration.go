package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
)

// registration keeps this API server an endpoint of default/kubernetes. It
// uses the same means as everybody: an Instance with a claim that expires when
// the server dies.
type registration struct {
	client    kubernetes.Interface
	instances *client.Client
	ip        netip.Addr     // the ClusterIP
	addr      netip.AddrPort // where this server answers
	node      string
	dns       []netip.Addr // ClusterIPs at which nodes answer DNS; may be empty
	log       *slog.Logger
}

const (
	apiService = "kubernetes"
	dnsService = "kube-dns"
	// proxyNameLabel keeps all other proxies from a Service (KEP-2447).
	proxyNameLabel = "service.kubernetes.io/service-proxy-name"
	apiClaimTTL    = 30 * time.Second
	apiHeartbeat   = 10 * time.Second
)

func (r *registration) run(ctx context.Context) error {
	name := v1alpha1.InstanceName(apiService, r.addr.Addr().String(), int32(r.addr.Port()))
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return r.leave(name)
		case <-time.After(wait):
		}
		err := r.ensure(ctx, name)
		if err == nil {
			wait = apiHeartbeat
			continue
		}
		if ctx.Err() == nil {
			r.log.Warn("the API server could not register itself; it tries again", "error", err)
		}
		wait = time.Second
	}
}

func (r *registration) ensure(ctx context.Context, name string) error {
	if err := r.ensureService(ctx); err != nil {
		return err
	}
	if err := r.ensureDNS(ctx); err != nil {
		return err
	}
	api := r.instances.Instances(metav1.NamespaceDefault)
	_, err := api.Renew(ctx, name, &v1alpha1.Renewal{Door: r.claim().Door, ID: r.claim().ID})
	if !apierrors.IsNotFound(err) {
		return err
	}
	in := &v1alpha1.Instance{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceDefault},
		Spec: v1alpha1.InstanceSpec{
			Service: apiService, Address: r.addr.Addr().String(), NodeName: r.node,
			Ports:  []v1alpha1.InstancePort{{Name: "https", Port: int32(r.addr.Port())}},
			Claims: []v1alpha1.Claim{r.claim()},
		},
	}
	if _, err = api.Create(ctx, in, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
		return nil // a moment ago, or by our earlier life: the next renewal finds it
	}
	return err
}

func (r *registration) claim() v1alpha1.Claim {
	return v1alpha1.Claim{Door: "apiserver", ID: r.addr.String(), Origin: r.node, TTL: &metav1.Duration{Duration: apiClaimTTL}}
}

func (r *registration) ensureService(ctx context.Context) error {
	api := r.client.CoreV1().Services(metav1.NamespaceDefault)
	_, err := api.Get(ctx, apiService, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	_, err = api.Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: apiService, Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"}},
		Spec: corev1.ServiceSpec{
			ClusterIP: r.ip.String(),
			Ports:     []corev1.ServicePort{{Name: "https", Port: 443, TargetPort: intstr.FromInt32(int32(r.addr.Port()))}},
		},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create the Service default/kubernetes: %w", err)
	}
	return nil
}

// ensureDNS reserves the address at which pods ask, under the name that people
// know. Each node answers there itself: it is no proxy's business.
func (r *registration) ensureDNS(ctx context.Context) error {
	if len(r.dns) == 0 {
		return nil
	}
	api := r.client.CoreV1().Services(metav1.NamespaceSystem)
	_, err := api.Get(ctx, dnsService, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: dnsService, Labels: map[string]string{
			"k8s-app": dnsService, proxyNameLabel: "fingerpost-dns",
		}},
		Spec: corev1.ServiceSpec{
			ClusterIP: r.dns[0].String(),
			Ports: []corev1.ServicePort{
				{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53}, {Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Port: 53},
			},
		},
	}
	if len(r.dns) > 1 {
		both := corev1.IPFamilyPolicyRequireDualStack
		s.Spec.IPFamilyPolicy = &both
		for _, a := range r.dns {
			s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, a.String())
		}
	}
	_, err = api.Create(ctx, s, metav1.CreateOptions{})
	if apierrors.IsInvalid(err) {
		r.log.Warn("the Service kube-system/kube-dns could not have its address: pods resolve all the same", "error", err)
		r.dns = nil
		return nil
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create the Service kube-system/kube-dns: %w", err)
	}
	return nil
}

// leave takes the server out of the endpoints before it stops answering.
func (r *registration) leave(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := r.instances.Instances(metav1.NamespaceDefault).Delete(ctx, name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
