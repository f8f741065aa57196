package apiserver

import (
	"context"
	"io"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/auth/nodeidentifier"
	"k8s.io/kubernetes/plugin/pkg/admission/noderestriction"
)

// nodeRestriction is upstream's plugin, which reads whole pods (ours are
// trimmed) and kinds that are not served here.
type nodeRestriction struct {
	*noderestriction.Plugin
	client kubernetes.Interface
}

func registerNodeRestriction(plugins *admission.Plugins, c kubernetes.Interface) {
	plugins.Register(noderestriction.PluginName, func(io.Reader) (admission.Interface, error) {
		return &nodeRestriction{noderestriction.NewPlugin(nodeidentifier.NewDefaultNodeIdentifier()), c}, nil
	})
}

// SetExternalKubeInformerFactory gives upstream's plugin what it reads: nodes
// and service accounts from the shared informers, pods live, and nothing of the
// kinds that do not exist.
func (n *nodeRestriction) SetExternalKubeInformerFactory(f informers.SharedInformerFactory) {
	never := informers.NewSharedInformerFactory(n.client, 0) // not started, so empty
	n.Plugin.SetExternalKubeInformerFactory(restrictionInformers{never, f, n.client})
}

type restrictionInformers struct {
	informers.SharedInformerFactory
	shared informers.SharedInformerFactory
	client kubernetes.Interface
}

// Core implements informers.SharedInformerFactory.
func (r restrictionInformers) Core() coreinformers.Interface {
	return restrictionCore{r.SharedInformerFactory.Core(), r}
}

type restrictionCore struct {
	coreinformers.Interface
	r restrictionInformers
}

// V1 implements coreinformers.Interface.
func (c restrictionCore) V1() corev1informers.Interface {
	return restrictionCoreV1{c.Interface.V1(), c.r}
}

type restrictionCoreV1 struct {
	corev1informers.Interface
	r restrictionInformers
}

// Nodes implements corev1informers.Interface.
func (c restrictionCoreV1) Nodes() corev1informers.TypedNodeInformer {
	return c.r.shared.Core().V1().Nodes()
}

// ServiceAccounts implements corev1informers.Interface.
func (c restrictionCoreV1) ServiceAccounts() corev1informers.TypedServiceAccountInformer {
	return c.r.shared.Core().V1().ServiceAccounts()
}

// Pods implements corev1informers.Interface.
func (c restrictionCoreV1) Pods() corev1informers.TypedPodInformer {
	return livePods{client: c.r.client}
}

// livePods looks pods up when they are asked for.
type livePods struct {
	client    kubernetes.Interface
	namespace string
}

// Informer is nil: nobody may wait for it.
func (p livePods) Informer() cache.SharedIndexInformer { return nil }

// TypedInformer is nil for the same reason.
func (p livePods) TypedInformer() corev1informers.PodIndexInformer { return nil }

// Lister implements corev1informers.PodInformer.
func (p livePods) Lister() corev1listers.PodLister { return p }

// Pods implements corev1listers.PodLister.
func (p livePods) Pods(namespace string) corev1listers.PodNamespaceLister {
	return livePods{p.client, namespace}
}

// Get implements corev1listers.PodNamespaceLister.
func (p livePods) Get(name string) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	return p.client.CoreV1().Pods(p.namespace).Get(ctx, name, metav1.GetOptions{})
}

// List implements both listers; the plugin does not list.
func (p livePods) List(labels.Selector) ([]*corev1.Pod, error) { return nil, nil }
