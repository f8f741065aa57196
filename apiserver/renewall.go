package apiserver

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

const (
	// maxRenewals is how many heartbeats one call may carry, and
	// maxRenewalsBody how long it may be.
	maxRenewals     = 10_000
	maxRenewalsBody = 2 << 20
)

// renewAllTarget takes {namespace} out of the path of a call that carries many
// heartbeats: PUT or POST to
//
//	/apis/fingerpost.dev/v1alpha1/namespaces/{namespace}/renewals
func renewAllTarget(path string) (ns string, ok bool) {
	const prefix = "/apis/" + v1alpha1.GroupName + "/v1alpha1/namespaces/"
	rest, ok := strings.CutPrefix(path, prefix)
	if !ok {
		return "", false
	}
	ns, ok = strings.CutSuffix(rest, "/renewals")
	return ns, ok && ns != "" && !strings.Contains(ns, "/")
}

// serveAll answers such a call: each heartbeat on its own, in order. Who sends
// it needs the right for all names of the namespace.
func (r *renewer) serveAll(w http.ResponseWriter, req *http.Request, ns string) {
	if _, ok := r.allow(w, req, ns, ""); !ok {
		return
	}
	refuse := func(message string) {
		writeStatus(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, message)
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, maxRenewalsBody+1))
	if err != nil {
		refuse("the body could not be read")
		return
	}
	var list v1alpha1.RenewalList
	switch {
	case len(body) > maxRenewalsBody:
		refuse("the body is longer than 2 MiB: send several calls")
		return
	case json.Unmarshal(body, &list) != nil:
		refuse(`the body must be a JSON RenewalList such as {"items":[{"name":"web-1"},{"name":"web-2","door":"http","id":"2"}]}`)
		return
	case len(list.Items) > maxRenewals:
		refuse("there are more than 10000 items: send several calls")
		return
	}
	list.Kind, list.APIVersion = "RenewalList", v1alpha1.GroupVersion.String()
	if list.Items == nil {
		list.Items = []v1alpha1.RenewalItem{}
	}
	now := r.now()
	for i := range list.Items {
		if req.Context().Err() != nil {
			return // nobody waits for the answer
		}
		in := &list.Items[i]
		*in = v1alpha1.RenewalItem{Name: in.Name, Door: in.Door, ID: in.ID}
		ttl, err := r.live.Renew(ns, in.Name, in.Door, in.ID, now)
		if err == nil {
			in.TTL = &metav1.Duration{Duration: ttl}
			continue
		}
		no := refused(err)
		in.Code, in.Reason, in.Message = int32(no.code), no.reason, no.message
	}
	w.Header()["Content-Type"] = jsonType
	_ = json.NewEncoder(w).Encode(&list) // the client went away: nothing to do
}
