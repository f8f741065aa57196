package claimtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// ErrAway is what every call gets while the API is away.
var ErrAway = errors.New("connection refused")

var resource = schema.GroupResource{Group: v1alpha1.GroupName, Resource: "instances"}

// API is the fake. The zero value is ready to use.
type API struct {
	// Before, if set, runs ahead of each call, outside the lock: a test can
	// write in between, wait, or refuse by returning an error.
	Before func(verb, name string) error
	// OnChange, if set, is told each stored change, in order, under the lock:
	// nil after a deletion.
	OnChange func(name string, in *v1alpha1.Instance)

	mu      sync.Mutex
	away    bool
	rev     int
	objects map[string]*v1alpha1.Instance
	calls   []string
}

// SetAway takes the API away, or brings it back.
func (a *API) SetAway(away bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away = away
}

// Clear forgets all objects, as a server with an empty store would.
func (a *API) Clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.objects = nil
}

// Calls lists "verb name" of each call that got through.
func (a *API) Calls() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.calls)
}

// Count counts the calls of a verb that got through.
func (a *API) Count(verb string) (n int) {
	for _, c := range a.Calls() {
		if strings.HasPrefix(c, verb+" ") {
			n++
		}
	}
	return n
}

// Find gives the Instance of that name, nil if there is none.
func (a *API) Find(namespace, name string) *v1alpha1.Instance {
	a.mu.Lock()
	defer a.mu.Unlock()
	if in := a.objects[namespace+"/"+name]; in != nil {
		return in.DeepCopy()
	}
	return nil
}

// All gives every Instance, by name.
func (a *API) All() []*v1alpha1.Instance {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []*v1alpha1.Instance
	for _, in := range a.objects {
		all = append(all, in.DeepCopy())
	}
	sort.Slice(all, func(i, j int) bool {
		return all[i].Namespace+"/"+all[i].Name < all[j].Namespace+"/"+all[j].Name
	})
	return all
}

// Dump writes one line per claim: "ns/service address:port door id State (reason)".
func (a *API) Dump() string {
	var b strings.Builder
	for _, in := range a.All() {
		port := int32(0)
		if len(in.Spec.Ports) > 0 {
			port = in.Spec.Ports[0].Port
		}
		head := fmt.Sprintf("%s/%s %s:%d", in.Namespace, in.Spec.Service, in.Spec.Address, port)
		if len(in.Spec.Claims) == 0 {
			fmt.Fprintln(&b, head)
		}
		for _, c := range in.Spec.Claims {
			fmt.Fprintf(&b, "%s %s %s %s", head, c.Door, c.ID, c.State)
			if c.Reason != "" {
				fmt.Fprintf(&b, " (%s)", c.Reason)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// Get implements the client.
func (a *API) Get(ctx context.Context, namespace, name string) (*v1alpha1.Instance, error) {
	unlock, err := a.enter(ctx, "get", name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	in := a.objects[namespace+"/"+name]
	if in == nil {
		return nil, apierrors.NewNotFound(resource, name)
	}
	return in.DeepCopy(), nil
}

// List implements the client.
func (a *API) List(ctx context.Context, namespace string) ([]v1alpha1.Instance, error) {
	unlock, err := a.enter(ctx, "list", "")
	if err != nil {
		return nil, err
	}
	unlock()
	var all []v1alpha1.Instance
	for _, in := range a.All() {
		if in.Namespace == namespace {
			all = append(all, *in)
		}
	}
	return all, nil
}

// Create implements the client.
func (a *API) Create(ctx context.Context, in *v1alpha1.Instance) (*v1alpha1.Instance, error) {
	unlock, err := a.enter(ctx, "create", in.Name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	key := in.Namespace + "/" + in.Name
	if a.objects[key] != nil {
		return nil, apierrors.NewAlreadyExists(resource, in.Name)
	}
	next := in.DeepCopy()
	next.UID = types.UID("uid-" + strconv.Itoa(a.rev+1))
	return a.store(key, next), nil
}

// Update implements the client.
func (a *API) Update(ctx context.Context, in *v1alpha1.Instance) (*v1alpha1.Instance, error) {
	unlock, err := a.enter(ctx, "update", in.Name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	key := in.Namespace + "/" + in.Name
	cur := a.objects[key]
	if cur == nil {
		return nil, apierrors.NewNotFound(resource, in.Name)
	}
	if in.ResourceVersion != cur.ResourceVersion || in.UID != cur.UID {
		return nil, apierrors.NewConflict(resource, in.Name, errors.New("the object has been modified"))
	}
	if in.Spec.Address != cur.Spec.Address || in.Spec.Service != cur.Spec.Service {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: v1alpha1.GroupName, Kind: "Instance"}, in.Name, nil)
	}
	return a.store(key, in.DeepCopy()), nil
}

// Delete implements the client.
func (a *API) Delete(ctx context.Context, namespace, name string, pre metav1.Preconditions) error {
	unlock, err := a.enter(ctx, "delete", name)
	if err != nil {
		return err
	}
	defer unlock()
	key := namespace + "/" + name
	cur := a.objects[key]
	if cur == nil {
		return apierrors.NewNotFound(resource, name)
	}
	if pre.UID != nil && *pre.UID != cur.UID || pre.ResourceVersion != nil && *pre.ResourceVersion != cur.ResourceVersion {
		return apierrors.NewConflict(resource, name, errors.New("the precondition does not hold"))
	}
	delete(a.objects, key)
	if a.OnChange != nil {
		a.OnChange(name, nil)
	}
	return nil
}

// Renew implements the client.
func (a *API) Renew(ctx context.Context, namespace, name string, r *v1alpha1.Renewal) (*v1alpha1.Renewal, error) {
	unlock, err := a.enter(ctx, "renew", name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	cur := a.objects[namespace+"/"+name]
	if cur == nil {
		return nil, apierrors.NewNotFound(resource, name)
	}
	if r.Door == "" {
		return r.DeepCopy(), nil
	}
	for _, c := range cur.Spec.Claims {
		if c.Door == r.Door && c.ID == r.ID {
			out := r.DeepCopy()
			out.TTL = c.TTL
			return out, nil
		}
	}
	return nil, apierrors.NewNotFound(resource, name)
}

func (a *API) enter(ctx context.Context, verb, name string) (unlock func(), err error) {
	if a.Before != nil {
		if err := a.Before(verb, name); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a.mu.Lock()
	if a.away {
		a.mu.Unlock()
		return nil, ErrAway
	}
	a.calls = append(a.calls, verb+" "+name)
	return a.mu.Unlock, nil
}

func (a *API) store(key string, in *v1alpha1.Instance) *v1alpha1.Instance {
	if a.objects == nil {
		a.objects = map[string]*v1alpha1.Instance{}
	}
	a.rev++
	in.ResourceVersion = strconv.Itoa(a.rev)
	a.objects[key] = in
	if a.OnChange != nil {
		a.OnChange(in.Name, in.DeepCopy())
	}
	return in.DeepCopy()
}
