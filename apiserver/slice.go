package apiserver

import (
	"context"
	"net/netip"
	"regexp"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/discovery"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// Kubernetes refuses loopback addresses in EndpointSlices and Endpoints,
// because they would mean another machine on each node. An Instance on a
// laptop has no other address. So the refusal is lifted where that danger is
// excluded: the object is written by our own controller, says so in its
// managed-by label, and each loopback endpoint names the node it belongs to,
// which views elsewhere honour (catalog.Endpoint.Local).

// ControllerUser is the identity under which the server's own controllers act.
const ControllerUser = user.APIServerUser

func byController(ctx context.Context) bool {
	u, ok := genericapirequest.UserFrom(ctx)
	return ok && u.GetName() == ControllerUser
}

// sliceCreate and sliceUpdate wrap upstream's strategy of EndpointSlices.
type sliceCreate struct{ rest.RESTCreateStrategy }
type sliceUpdate struct{ rest.RESTUpdateStrategy }

func (s sliceCreate) Validate(ctx context.Context, obj runtime.Object) field.ErrorList {
	return allowOwnLoopback(ctx, obj, s.RESTCreateStrategy.Validate(ctx, obj))
}

func (s sliceUpdate) ValidateUpdate(ctx context.Context, obj, old runtime.Object) field.ErrorList {
	return allowOwnLoopback(ctx, obj, s.RESTUpdateStrategy.ValidateUpdate(ctx, obj, old))
}

var loopbackField = regexp.MustCompile(`^(endpoints\[(\d+)\]\.addresses\[\d+\]|subsets\[(\d+)\]\.(addresses|notReadyAddresses)\[(\d+)\]\.ip)$`)

func allowOwnLoopback(ctx context.Context, obj runtime.Object, errs field.ErrorList) field.ErrorList {
	if len(errs) == 0 || !byController(ctx) {
		return errs
	}
	kept := errs[:0:0]
	for _, e := range errs {
		if !(strings.Contains(e.Detail, "loopback") && loopbackField.MatchString(e.Field) && ownLoopback(obj, e.BadValue)) {
			kept = append(kept, e)
		}
	}
	return kept
}

// ownLoopback says whether an address stands in an object of our controllers
// beside the name of its node.
func ownLoopback(obj runtime.Object, bad any) bool {
	text, _ := bad.(string)
	addr, err := netip.ParseAddr(text)
	if err != nil || !addr.IsLoopback() {
		return false
	}
	switch o := obj.(type) {
	case *discovery.EndpointSlice:
		if o.Labels[discoveryv1.LabelManagedBy] != v1alpha1.ManagedBy {
			return false
		}
		for i := range o.Endpoints {
			for _, a := range o.Endpoints[i].Addresses {
				if a == text && (o.Endpoints[i].NodeName == nil || *o.Endpoints[i].NodeName == "") {
					return false
				}
			}
		}
		return true
	case *api.Endpoints:
		for i := range o.Subsets {
			for _, list := range [][]api.EndpointAddress{o.Subsets[i].Addresses, o.Subsets[i].NotReadyAddresses} {
				for j := range list {
					if list[j].IP == text && (list[j].NodeName == nil || *list[j].NodeName == "") {
						return false
					}
				}
			}
		}
		return true
	}
	return false
}
