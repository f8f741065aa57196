package apiserver

import (
	"context"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/auth/nodeidentifier"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
	bootstraptoken "k8s.io/kubernetes/plugin/pkg/auth/authenticator/token/bootstrap"
	nodeauthorizer "k8s.io/kubernetes/plugin/pkg/auth/authorizer/node"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
)

// UserKubeletClient is who the API server is for the port of a node.
const UserKubeletClient = "kube-apiserver-kubelet-client"

const kubeletClientFile = "kubelet-client"

// servingChain ends with the CA, so that a node that joins can compare it with
// the hash it was given.
func (p *PKI) servingChain() []byte {
	chain := append([]byte(nil), p.Serving.Cert...)
	return append(chain, p.CACert...)
}

// kubeletClient says how nodes are reached for logs, exec and port-forward. The
// port is the one the Node gives.
func kubeletClient(p *PKI) kubeletclient.KubeletClientConfig {
	return kubeletclient.KubeletClientConfig{
		Port: 10250, HTTPTimeout: 5 * time.Second,
		PreferredAddressTypes: []string{string(corev1.NodeInternalIP), string(corev1.NodeHostName)},
		TLSClientConfig: kubeletclient.KubeletTLSConfig{
			CertFile: filepath.Join(p.dir, kubeletClientFile+".crt"), KeyFile: filepath.Join(p.dir, kubeletClientFile+".key"),
			CAFile: filepath.Join(p.dir, "node-ca.crt"),
		},
	}
}

// bootstrapTokens accepts the tokens with which nodes join. Each is looked up
// when it is used: they are rare.
func bootstrapTokens(c kubernetes.Interface) authenticator.Token {
	return bootstraptoken.NewTokenAuthenticator(liveSecrets{c})
}

type liveSecrets struct{ client kubernetes.Interface }

// Get implements corev1listers.SecretNamespaceLister.
func (s liveSecrets) Get(name string) (*corev1.Secret, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	return s.client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, name, metav1.GetOptions{})
}

// List implements corev1listers.SecretNamespaceLister; the authenticator does
// not list.
func (s liveSecrets) List(labels.Selector) ([]*corev1.Secret, error) { return nil, nil }

// lookupTimeout bounds a look-up of an object through the server itself.
const lookupTimeout = 5 * time.Second

// nodeGraph knows which secrets, config maps and service accounts the pods of a
// node use, from an informer that keeps nothing else of them.
type nodeGraph struct {
	graph *nodeauthorizer.Graph
	pods  cache.SharedIndexInformer
}

func newNodeGraph(c kubernetes.Interface) (*nodeGraph, error) {
	f := informers.NewSharedInformerFactoryWithOptions(c, 0, informers.WithTransform(referencesOnly))
	g := &nodeGraph{graph: nodeauthorizer.NewGraph(), pods: f.Core().V1().Pods().Informer()}
	_, err := g.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { g.update(nil, obj.(*corev1.Pod)) },
		UpdateFunc: func(was, is any) {
			g.update(was.(*corev1.Pod), is.(*corev1.Pod))
		},
		DeleteFunc: func(obj any) {
			if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = t.Obj
			}
			if p, ok := obj.(*corev1.Pod); ok && p.Spec.NodeName != "" {
				g.graph.DeletePod(p.Name, p.Namespace)
			}
		},
	})
	return g, err
}

// update notes what a pod uses. Of that, only ephemeral containers may change
// after the pod was given a node.
func (g *nodeGraph) update(was, is *corev1.Pod) {
	if is.Spec.NodeName == "" {
		return
	}
	if was != nil && was.UID == is.UID && was.Spec.NodeName == is.Spec.NodeName && len(was.Spec.EphemeralContainers) == len(is.Spec.EphemeralContainers) {
		return
	}
	g.graph.AddPod(is)
}

func (g *nodeGraph) run(ctx context.Context) { g.pods.RunWithContext(ctx) }

func (g *nodeGraph) authorizer() authorizer.Authorizer {
	return nodeauthorizer.NewAuthorizer(g.graph, nodeidentifier.NewDefaultNodeIdentifier(), bootstrappolicy.NodeRules())
}

// referencesOnly keeps what names other objects.
func referencesOnly(obj any) (any, error) {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	t := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, UID: p.UID, ResourceVersion: p.ResourceVersion},
		Spec: corev1.PodSpec{
			NodeName: p.Spec.NodeName, ServiceAccountName: p.Spec.ServiceAccountName, ImagePullSecrets: p.Spec.ImagePullSecrets,
			Volumes: p.Spec.Volumes, EphemeralContainers: p.Spec.EphemeralContainers,
			Containers: referring(p.Spec.Containers), InitContainers: referring(p.Spec.InitContainers),
		},
	}
	if v, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		t.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: v}
	}
	return t, nil
}

func referring(cs []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for i := range cs {
		c := corev1.Container{Name: cs[i].Name, EnvFrom: cs[i].EnvFrom}
		for _, e := range cs[i].Env {
			if e.ValueFrom != nil {
				c.Env = append(c.Env, e)
			}
		}
		if len(c.Env)+len(c.EnvFrom) > 0 {
			out = append(out, c)
		}
	}
	return out
}

var (
	_ corev1listers.SecretNamespaceLister = liveSecrets{}
	_ corev1listers.PodLister             = livePods{}
)
