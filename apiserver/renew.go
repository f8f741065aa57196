package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapiserver "k8s.io/apiserver/pkg/server"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// renewer answers heartbeats: PUT or POST to
//
//	/apis/fingerpost.dev/v1alpha1/namespaces/{namespace}/instances/{name}/renew
//
// with an empty body, a Renewal, or ?door=…&id=…. They are by far the most
// frequent requests and change nothing in the store, so they are answered in
// front of the filter chain. Who may send them is decided by the same
// authenticator and authorizer (verb "update" on "instances/renew"); a
// decision is remembered for decisionTTL.
type renewer struct {
	live  Liveness
	authn authenticator.Request
	authz authorizer.Authorizer
	auds  authenticator.Audiences
	now   func() time.Time

	mu      sync.RWMutex
	allowed map[decisionKey]time.Time // until when
}

type decisionKey struct{ credential, namespace string }

const (
	renewPrefix = "/apis/" + v1alpha1.GroupName + "/v1alpha1/namespaces/"
	decisionTTL = 10 * time.Second
	// maxDecisions bounds the memory of decisions; beyond it they start anew.
	maxDecisions = 100_000
	maxRenewBody = 4 << 10
)

func newRenewer(l Liveness, c *genericapiserver.Config) *renewer {
	return &renewer{live: l, authn: c.Authentication.Authenticator, authz: c.Authorization.Authorizer, auds: c.Authentication.APIAudiences, now: time.Now, allowed: map[decisionKey]time.Time{}}
}

func (r *renewer) wrap(next http.Handler) http.Handler {
	if r.live == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPut || req.Method == http.MethodPost {
			if ns, name, ok := renewTarget(req.URL.Path); ok {
				r.serve(w, req, ns, name)
				return
			}
		}
		next.ServeHTTP(w, req)
	})
}

// renewTarget takes {namespace} and {name} out of a path.
func renewTarget(path string) (ns, name string, ok bool) {
	rest, ok := strings.CutPrefix(path, renewPrefix)
	if !ok {
		return "", "", false
	}
	rest, ok = strings.CutSuffix(rest, "/renew")
	if !ok {
		return "", "", false
	}
	ns, name, ok = strings.Cut(rest, "/instances/")
	return ns, name, ok && ns != "" && name != "" && !strings.Contains(ns, "/") && !strings.Contains(name, "/")
}

func (r *renewer) serve(w http.ResponseWriter, req *http.Request, ns, name string) {
	if !r.allow(w, req, ns, name) {
		return
	}
	door, id, err := renewBody(req)
	if err != nil {
		writeStatus(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return
	}
	ttl, err := r.live.Renew(ns, name, door, id, r.now())
	if err != nil {
		var st apierrors.APIStatus
		if errors.As(err, &st) {
			writeStatus(w, int(st.Status().Code), st.Status().Reason, st.Status().Message)
			return
		}
		writeStatus(w, http.StatusInternalServerError, metav1.StatusReasonInternalError, err.Error())
		return
	}
	buf := append(make([]byte, 0, 160), `{"kind":"Renewal","apiVersion":"fingerpost.dev/v1alpha1","ttl":"`...)
	buf = append(append(buf, ttl.String()...), "\"}\n"...)
	w.Header()["Content-Type"] = jsonType
	_, _ = w.Write(buf)
}

var jsonType = []string{"application/json"}

// renewBody reads which claim is meant.
func renewBody(req *http.Request) (door, id string, err error) {
	if req.URL.RawQuery != "" {
		q := req.URL.Query()
		door, id = q.Get("door"), q.Get("id")
	}
	if req.ContentLength == 0 {
		return door, id, nil
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, maxRenewBody+1))
	if err != nil {
		return "", "", errors.New("the body could not be read")
	}
	if len(body) == 0 {
		return door, id, nil
	}
	if len(body) > maxRenewBody {
		return "", "", errors.New("the body of a heartbeat is a Renewal of at most 4 KiB; send metadata with the registration")
	}
	var b struct {
		Door string `json:"door"`
		ID   string `json:"id"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return "", "", errors.New(`the body of a heartbeat must be empty or a JSON Renewal such as {"door":"http","id":"web-1"}`)
	}
	if b.Door != "" || b.ID != "" {
		door, id = b.Door, b.ID
	}
	return door, id, nil
}

// allow authenticates and authorizes, from memory when it was done lately.
func (r *renewer) allow(w http.ResponseWriter, req *http.Request, ns, name string) bool {
	key := decisionKey{credential(req), ns}
	if key.credential != "" {
		r.mu.RLock()
		until := r.allowed[key]
		r.mu.RUnlock()
		if r.now().Before(until) {
			return true
		}
	}
	ctx := authenticator.WithAudiences(req.Context(), r.auds)
	resp, ok, err := r.authn.AuthenticateRequest(req.Clone(ctx)) // authenticators remove the header they used
	if err != nil || !ok {
		writeStatus(w, http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "Unauthorized: send a service account token as 'Authorization: Bearer …' (kubectl create token NAME), or a client certificate")
		return false
	}
	whole, err := r.may(ctx, resp.User, ns, "")
	if err == nil && !whole {
		var one bool
		if one, err = r.may(ctx, resp.User, ns, name); one {
			return true // for this name only: not remembered for the namespace
		}
	}
	if err != nil || !whole {
		writeStatus(w, http.StatusForbidden, metav1.StatusReasonForbidden,
			`instances.fingerpost.dev "`+name+`" is forbidden: User "`+resp.User.GetName()+`" cannot update resource "instances/renew" in API group "fingerpost.dev" in the namespace "`+ns+`"`)
		return false
	}
	if key.credential != "" {
		r.mu.Lock()
		if len(r.allowed) >= maxDecisions {
			clear(r.allowed)
		}
		r.allowed[key] = r.now().Add(decisionTTL)
		r.mu.Unlock()
	}
	return true
}

func (r *renewer) may(ctx context.Context, u user.Info, ns, name string) (bool, error) {
	d, _, err := r.authz.Authorize(ctx, authorizer.AttributesRecord{
		User: u, Verb: "update", Namespace: ns, APIGroup: v1alpha1.GroupName, APIVersion: "v1alpha1",
		Resource: "instances", Subresource: "renew", Name: name, ResourceRequest: true,
	})
	return d == authorizer.DecisionAllow, err
}

// credential names what the request authenticates with; "" if that is nothing
// to remember.
func credential(req *http.Request) string {
	if h := req.Header.Get("Authorization"); h != "" {
		return h
	}
	if req.TLS != nil && len(req.TLS.PeerCertificates) > 0 {
		return string(req.TLS.PeerCertificates[0].Raw)
	}
	return ""
}
