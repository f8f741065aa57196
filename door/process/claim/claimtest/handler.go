package claimtest

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

const prefix = "/apis/" + v1alpha1.GroupName + "/v1alpha1/namespaces/"

// ServeHTTP serves the Instances as the real API does, in JSON, so that a real
// client can be pointed at the fake.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rest, ours := strings.CutPrefix(r.URL.Path, prefix)
	part := strings.Split(rest, "/") // namespace, "instances", name, "renew"
	if !ours || len(part) < 2 || part[1] != "instances" || len(part) > 4 {
		answer(w, nil, apierrors.NewNotFound(resource, r.URL.Path))
		return
	}
	part = append(part, "", "")
	ctx, ns, name := r.Context(), part[0], part[2]
	body := func(to any) error {
		if err := json.NewDecoder(r.Body).Decode(to); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
		return nil
	}
	var out any
	var err error
	switch {
	case part[3] == "renew":
		var in v1alpha1.Renewal
		if err = body(&in); err == nil {
			var got *v1alpha1.Renewal
			if got, err = a.Renew(ctx, ns, name, &in); err == nil {
				got.TypeMeta = metav1.TypeMeta{Kind: "Renewal", APIVersion: v1alpha1.GroupVersion.String()}
				out = got
			}
		}
	case r.Method == http.MethodGet && name == "":
		list := v1alpha1.InstanceList{TypeMeta: metav1.TypeMeta{Kind: "InstanceList", APIVersion: v1alpha1.GroupVersion.String()}}
		list.Items, err = a.List(ctx, ns)
		out = &list
	case r.Method == http.MethodGet:
		out, err = typed(a.Get(ctx, ns, name))
	case r.Method == http.MethodDelete:
		var o metav1.DeleteOptions
		if err = body(&o); err == nil {
			var pre metav1.Preconditions
			if o.Preconditions != nil {
				pre = *o.Preconditions
			}
			err = a.Delete(ctx, ns, name, pre)
		}
		out = &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess}
	default:
		var in v1alpha1.Instance
		if err = body(&in); err == nil && r.Method == http.MethodPost {
			out, err = typed(a.Create(ctx, &in))
		} else if err == nil {
			out, err = typed(a.Update(ctx, &in))
		}
	}
	answer(w, out, err)
}

func typed(in *v1alpha1.Instance, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	in.TypeMeta = metav1.TypeMeta{Kind: "Instance", APIVersion: v1alpha1.GroupVersion.String()}
	return in, nil
}

func answer(w http.ResponseWriter, out any, err error) {
	if errors.Is(err, ErrAway) {
		panic(http.ErrAbortHandler) // the connection breaks off
	}
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		var status apierrors.APIStatus
		if !errors.As(err, &status) {
			status = apierrors.NewInternalError(err)
		}
		s := status.Status()
		s.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		w.WriteHeader(int(s.Code))
		out = &s
	}
	_ = json.NewEncoder(w).Encode(out)
}
