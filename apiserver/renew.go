package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapiserver "k8s.io/apiserver/pkg/server"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/apiserver/heartbeat"
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

	beats *beatConns

	mu      sync.RWMutex
	allowed map[decisionKey]time.Time // until when
}

type decisionKey struct{ credential, namespace string }

const (
	decisionTTL = 10 * time.Second
	// maxDecisions bounds the memory of decisions; beyond it they start anew.
	maxDecisions = 100_000
)

func newRenewer(l Liveness, c *genericapiserver.Config) *renewer {
	r := &renewer{live: l, authn: c.Authentication.Authenticator, authz: c.Authorization.Authorizer, auds: c.Authentication.APIAudiences, now: time.Now, allowed: map[decisionKey]time.Time{}}
	r.beats = newBeatConns(r)
	return r
}

func (r *renewer) wrap(next http.Handler) http.Handler {
	if r.live == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPut || req.Method == http.MethodPost {
			if ns, name, ok := heartbeat.Target(req.URL.Path); ok {
				r.serve(w, req, ns, name)
				return
			}
			if ns, ok := renewAllTarget(req.URL.Path); ok {
				r.serveAll(w, req, ns)
				return
			}
		}
		next.ServeHTTP(w, req)
	})
}

func (r *renewer) serve(w http.ResponseWriter, req *http.Request, ns, name string) {
	until, ok := r.allow(w, req, ns, name)
	if !ok {
		return
	}
	var body []byte
	if req.ContentLength != 0 {
		var err error
		if body, err = io.ReadAll(io.LimitReader(req.Body, heartbeat.MaxBody+1)); err != nil {
			writeStatus(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, "the body could not be read")
			return
		}
	}
	ttl, no := r.renew(ns, name, req.URL.RawQuery, body)
	if no != nil {
		no.write(w)
		return
	}
	if r.beats.take(w, req, until, ns, ttl) {
		return
	}
	w.Header()["Content-Type"] = jsonType
	_, _ = w.Write(renewed(ttl))
}

// renewed is the answer to a heartbeat.
func renewed(ttl time.Duration) []byte {
	buf := append(make([]byte, 0, 160), `{"kind":"Renewal","apiVersion":"fingerpost.dev/v1alpha1","ttl":"`...)
	return append(append(buf, ttl.String()...), "\"}\n"...)
}

// refusal is why a heartbeat was not taken.
type refusal struct {
	code    int
	reason  metav1.StatusReason
	message string
}

func (r *refusal) write(w http.ResponseWriter) { writeStatus(w, r.code, r.reason, r.message) }

// renew takes a heartbeat that is allowed.
func (r *renewer) renew(ns, name, query string, body []byte) (time.Duration, *refusal) {
	door, id, err := renewBody(query, body)
	if err != nil {
		return 0, &refusal{http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error()}
	}
	ttl, err := r.live.Renew(ns, name, door, id, r.now())
	if err != nil {
		return 0, refused(err)
	}
	return ttl, nil
}

// refused gives the API's words for an error of the Liveness.
func refused(err error) *refusal {
	var st apierrors.APIStatus
	if errors.As(err, &st) {
		return &refusal{int(st.Status().Code), st.Status().Reason, st.Status().Message}
	}
	return &refusal{http.StatusInternalServerError, metav1.StatusReasonInternalError, err.Error()}
}

var jsonType = []string{"application/json"}

// renewBody reads which claim is meant.
func renewBody(query string, body []byte) (door, id string, err error) {
	if query != "" {
		q, _ := url.ParseQuery(query) // what of it can be read counts, as everywhere
		door, id = q.Get("door"), q.Get("id")
	}
	if len(body) == 0 {
		return door, id, nil
	}
	if len(body) > heartbeat.MaxBody {
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

// allow authenticates and authorizes, from memory when it was done lately. The
// answer holds until then for this credential in this namespace; zero: for this
// request only.
func (r *renewer) allow(w http.ResponseWriter, req *http.Request, ns, name string) (until time.Time, ok bool) {
	key := decisionKey{credential(req), ns}
	if key.credential != "" {
		r.mu.RLock()
		until := r.allowed[key]
		r.mu.RUnlock()
		if r.now().Before(until) {
			return until, true
		}
	}
	ctx := authenticator.WithAudiences(req.Context(), r.auds)
	resp, ok, err := r.authn.AuthenticateRequest(req.Clone(ctx)) // authenticators remove the header they used
	if err != nil || !ok {
		writeStatus(w, http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "Unauthorized: send a service account token as 'Authorization: Bearer …' (kubectl create token NAME), or a client certificate")
		return time.Time{}, false
	}
	whole, err := r.may(ctx, resp.User, ns, "")
	if err == nil && !whole {
		var one bool
		if one, err = r.may(ctx, resp.User, ns, name); one {
			return time.Time{}, true // for this name only: not remembered for the namespace
		}
	}
	if err != nil || !whole {
		writeStatus(w, http.StatusForbidden, metav1.StatusReasonForbidden,
			`instances.fingerpost.dev "`+name+`" is forbidden: User "`+resp.User.GetName()+`" cannot update resource "instances/renew" in API group "fingerpost.dev" in the namespace "`+ns+`"`)
		return time.Time{}, false
	}
	if key.credential == "" {
		return time.Time{}, true
	}
	until = r.now().Add(decisionTTL)
	r.mu.Lock()
	if len(r.allowed) >= maxDecisions {
		clear(r.allowed)
	}
	r.allowed[key] = until
	r.mu.Unlock()
	return until, true
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
