package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// Resource is the plural name under which Instances are served.
const Resource = "instances"

// Client reads and writes Instances. It is safe for concurrent use.
type Client struct {
	rest  rest.Interface
	codec runtime.ParameterCodec
}

// New makes a client with its own HTTP connections.
func New(cfg *rest.Config) (*Client, error) {
	own, err := configured(cfg)
	if err != nil {
		return nil, err
	}
	h, err := rest.HTTPClientFor(own)
	if err != nil {
		return nil, fmt.Errorf("v1alpha1/client: connect: %w", err)
	}
	return NewForHTTP(cfg, h)
}

// NewForHTTP makes a client on HTTP connections shared with other clients.
func NewForHTTP(cfg *rest.Config, h *http.Client) (*Client, error) {
	own, err := configured(cfg)
	if err != nil {
		return nil, err
	}
	r, err := rest.RESTClientForConfigAndClient(own, h)
	if err != nil {
		return nil, fmt.Errorf("v1alpha1/client: connect: %w", err)
	}
	return NewForREST(r)
}

// NewForREST makes a client on a ready REST client of fingerpost.dev/v1alpha1.
func NewForREST(r rest.Interface) (*Client, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	return &Client{rest: r, codec: runtime.NewParameterCodec(scheme)}, nil
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.Unversioned)
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("v1alpha1/client: register kinds: %w", err)
	}
	return scheme, nil
}

func configured(cfg *rest.Config) (*rest.Config, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	own := rest.CopyConfig(cfg)
	gv := v1alpha1.GroupVersion
	own.GroupVersion = &gv
	own.APIPath = "/apis"
	own.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	// Few are sent, many come.
	own.ContentType, own.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	if own.UserAgent == "" {
		own.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	return own, nil
}

// REST gives the REST client underneath.
func (c *Client) REST() rest.Interface { return c.rest }

// Instances reads and writes the Instances of one namespace; "" reads those
// of all namespaces.
func (c *Client) Instances(namespace string) *Instances {
	return &Instances{
		ClientWithList: gentype.NewClientWithList(Resource, c.rest, c.codec, namespace,
			func() *v1alpha1.Instance { return &v1alpha1.Instance{} },
			func() *v1alpha1.InstanceList { return &v1alpha1.InstanceList{} }),
	}
}

// Instances is the client of one namespace: Create, Update, UpdateStatus,
// Delete, DeleteCollection, Get, List, Watch, Patch, Renew, RenewAll.
type Instances struct {
	*gentype.ClientWithList[*v1alpha1.Instance, *v1alpha1.InstanceList]
}

// Renew sends a heartbeat. An empty r renews every claim of the instance. The
// answer's TTL says how long the heartbeat is good for.
func (i *Instances) Renew(ctx context.Context, name string, r *v1alpha1.Renewal) (*v1alpha1.Renewal, error) {
	answer := &v1alpha1.Renewal{}
	if r == nil {
		r = &v1alpha1.Renewal{}
	}
	err := i.GetClient().Put().Namespace(i.GetNamespace()).Resource(Resource).Name(name).
		SubResource("renew").Body(r).Do(ctx).Into(answer)
	return answer, err
}

// RenewAll sends many heartbeats in one call, in batches that the server takes.
// The answer has each of them in the same order, with its TTL or with the code
// and the message with which it was refused. It needs the right to update
// instances/renew for the whole namespace.
func (i *Instances) RenewAll(ctx context.Context, beats []v1alpha1.RenewalItem) ([]v1alpha1.RenewalItem, error) {
	const most = 5000
	var all []v1alpha1.RenewalItem
	for batch := range slices.Chunk(beats, most) {
		body, err := json.Marshal(v1alpha1.RenewalList{Items: batch})
		if err != nil {
			return all, err
		}
		raw, err := i.GetClient().Put().Namespace(i.GetNamespace()).Resource("renewals").SetHeader("Content-Type", runtime.ContentTypeJSON).Body(body).Do(ctx).Raw()
		if err != nil {
			return all, err
		}
		var answer v1alpha1.RenewalList
		if err := json.Unmarshal(raw, &answer); err != nil {
			return all, fmt.Errorf("v1alpha1/client: renew %d instances: the answer is no RenewalList: %w", len(batch), err)
		}
		all = append(all, answer.Items...)
	}
	return all, nil
}

// AddressPools reads and writes AddressPools.
func (c *Client) AddressPools() *gentype.ClientWithList[*v1alpha1.AddressPool, *v1alpha1.AddressPoolList] {
	return gentype.NewClientWithList("addresspools", c.rest, c.codec, "",
		func() *v1alpha1.AddressPool { return &v1alpha1.AddressPool{} },
		func() *v1alpha1.AddressPoolList { return &v1alpha1.AddressPoolList{} })
}
