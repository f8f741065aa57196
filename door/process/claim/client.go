package claim

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
)

// On gives the Client that talks to a real API. The rest.Config behind c
// should have no rate limit (QPS -1): heartbeats must not queue.
func On(c *client.Client) Client { return api{c} }

type api struct{ c *client.Client }

func (a api) Get(ctx context.Context, namespace, name string) (*v1alpha1.Instance, error) {
	return a.c.Instances(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (a api) Create(ctx context.Context, in *v1alpha1.Instance) (*v1alpha1.Instance, error) {
	return a.c.Instances(in.Namespace).Create(ctx, in, metav1.CreateOptions{})
}

func (a api) Update(ctx context.Context, in *v1alpha1.Instance) (*v1alpha1.Instance, error) {
	return a.c.Instances(in.Namespace).Update(ctx, in, metav1.UpdateOptions{})
}

func (a api) Delete(ctx context.Context, namespace, name string, pre metav1.Preconditions) error {
	return a.c.Instances(namespace).Delete(ctx, name, metav1.DeleteOptions{Preconditions: &pre})
}

func (a api) Renew(ctx context.Context, namespace, name string, r *v1alpha1.Renewal) (*v1alpha1.Renewal, error) {
	return a.c.Instances(namespace).Renew(ctx, name, r)
}
