package apiserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// systemNamespaces exist from the start.
var systemNamespaces = []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease}

// defaultCIDR is the name of the ServiceCIDR that the configuration makes.
const defaultCIDR = "kubernetes"

// bootstrap makes what every cluster has. Each part is safe to repeat, and two
// servers may do it at once.
func bootstrap(ctx context.Context, c kubernetes.Interface, cfg *Config) error {
	var wg sync.WaitGroup
	errs := make([]error, 3)
	wg.Go(func() { errs[0] = ensureNamespaces(ctx, c) })
	wg.Go(func() { errs[1] = ensureRBAC(ctx, c) })
	wg.Go(func() { errs[2] = ensureServiceCIDR(ctx, c, cfg) })
	wg.Wait()
	return errors.Join(errs...)
}

func ensureNamespaces(ctx context.Context, c kubernetes.Interface) error {
	for _, name := range systemNamespaces {
		_, err := c.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			_, err = c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		}
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("apiserver: make namespace %s: %w", name, err)
		}
	}
	return nil
}

// ensureServiceCIDR makes the default range, or refuses to run with another
// one than the store was made with: the ClusterIPs given out would be foreign.
func ensureServiceCIDR(ctx context.Context, c kubernetes.Interface, cfg *Config) error {
	want := make([]string, len(cfg.ServiceCIDRs))
	for i, p := range cfg.ServiceCIDRs {
		want[i] = p.String()
	}
	api := c.NetworkingV1().ServiceCIDRs()
	have, err := api.Get(ctx, defaultCIDR, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		have, err = api.Create(ctx, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: defaultCIDR}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: want}}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) { // another server was faster
			have, err = api.Get(ctx, defaultCIDR, metav1.GetOptions{})
		}
	}
	if err != nil {
		return fmt.Errorf("apiserver: make the default ServiceCIDR: %w", err)
	}
	if !slices.Equal(have.Spec.CIDRs, want) {
		return fmt.Errorf("apiserver: the store was made with service range %v, and this server is started with %v; start it with --service-cidr %s, or use another --data-dir",
			have.Spec.CIDRs, want, strings.Join(have.Spec.CIDRs, ","))
	}
	for _, cond := range have.Status.Conditions {
		if cond.Type == networkingv1.ServiceCIDRConditionReady && cond.Status == metav1.ConditionTrue {
			return nil
		}
	}
	have.Status.Conditions = []metav1.Condition{{
		Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue, Reason: "Ready", Message: "Kubernetes default Service CIDR is ready", LastTransitionTime: metav1.Now(),
	}}
	if _, err := api.UpdateStatus(ctx, have, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) {
		return fmt.Errorf("apiserver: mark the default ServiceCIDR ready: %w", err)
	}
	return nil
}
