package claim

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// AnnotationHandMade on an Instance: it was written without claims before a
// door put one on it, so it outlives the last claim.
const AnnotationHandMade = "fingerpost.dev/hand-made"

// attempts bounds the tries at one write that conflicts: at least one of the
// writers gets through each time, so this many must be at it at once.
const attempts = 32

// Client is the part of the API that registrants need. Errors are those of
// k8s.io/apimachinery/pkg/api/errors.
type Client interface {
	Get(ctx context.Context, namespace, name string) (*v1alpha1.Instance, error)
	Create(ctx context.Context, in *v1alpha1.Instance) (*v1alpha1.Instance, error)
	// Update must fail with a conflict if in.ResourceVersion is not the
	// current one.
	Update(ctx context.Context, in *v1alpha1.Instance) (*v1alpha1.Instance, error)
	Delete(ctx context.Context, namespace, name string, pre metav1.Preconditions) error
	Renew(ctx context.Context, namespace, name string, r *v1alpha1.Renewal) (*v1alpha1.Renewal, error)
}

// Put makes the Instance exist with the one claim that want carries, and
// returns it as stored. known is the Instance as the caller last saw it, which
// saves a read; nil if it never did.
func Put(ctx context.Context, c Client, want, known *v1alpha1.Instance) (*v1alpha1.Instance, error) {
	if len(want.Spec.Claims) != 1 {
		return nil, fmt.Errorf("door/process/claim: register %s: %d claims given, want 1", want.Name, len(want.Spec.Claims))
	}
	cur := known
	var last error
	for range attempts {
		var err error
		if cur == nil {
			cur, err = c.Get(ctx, want.Namespace, want.Name)
			if apierrors.IsNotFound(err) {
				got, err := c.Create(ctx, want)
				if apierrors.IsAlreadyExists(err) {
					last = err
					continue // another door was faster: join it
				}
				return got, err
			}
			if err != nil {
				return nil, err
			}
		}
		next := merge(cur, want)
		if equality.Semantic.DeepEqual(next, cur) {
			if known != cur {
				return cur, nil // just read: it is so
			}
			cur = nil // only remembered: it may have changed since
			continue
		}
		got, err := c.Update(ctx, next)
		if err == nil {
			return got, nil
		}
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return nil, err
		}
		last, cur = err, nil
	}
	return nil, fmt.Errorf("door/process/claim: register %s/%s: gave up after %d conflicts: %w", want.Namespace, want.Name, attempts, last)
}

// merge is cur with want's claim and, if nobody else is on it, want's word on
// everything else that can be changed.
func merge(cur, want *v1alpha1.Instance) *v1alpha1.Instance {
	mine := want.Spec.Claims[0]
	next := cur.DeepCopy()
	alone, found := true, false
	for i := range next.Spec.Claims {
		if own(&next.Spec.Claims[i], mine.Door, mine.ID) {
			mine.DeepCopyInto(&next.Spec.Claims[i])
			found = true
		} else {
			alone = false
		}
	}
	if !found {
		next.Spec.Claims = append(next.Spec.Claims, *mine.DeepCopy())
	}
	if len(cur.Spec.Claims) == 0 {
		setAnnotation(next, AnnotationHandMade, "true")
		return next
	}
	if !alone || cur.Annotations[AnnotationHandMade] != "" {
		return next
	}
	w := want.Spec.DeepCopy()
	next.Spec.Ports, next.Spec.Weight, next.Spec.Zone = w.Ports, w.Weight, w.Zone
	next.Spec.NodeName, next.Spec.Hostname = w.NodeName, w.Hostname
	next.Spec.Metadata, next.Spec.Check = w.Metadata, w.Check
	for k, v := range want.Annotations {
		setAnnotation(next, k, v)
	}
	for k, v := range want.Labels {
		if next.Labels == nil {
			next.Labels = map[string]string{}
		}
		next.Labels[k] = v
	}
	defaulted(&next.Spec, &cur.Spec)
	return next
}

// defaulted takes over what the server filled in, so that an unchanged
// registration is seen as such.
func defaulted(next, cur *v1alpha1.InstanceSpec) {
	if next.Weight == nil {
		next.Weight = cur.Weight
	}
	if len(next.Ports) == len(cur.Ports) {
		for i := range next.Ports {
			if next.Ports[i].Protocol == "" {
				next.Ports[i].Protocol = cur.Ports[i].Protocol
			}
		}
	}
}

// Remove takes the claim off, and the Instance away if it was the last one.
// It says whether the claim was there.
func Remove(ctx context.Context, c Client, namespace, name, door, id string) (bool, error) {
	var last error
	for range attempts {
		cur, err := c.Get(ctx, namespace, name)
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		next := cur.DeepCopy()
		next.Spec.Claims = nil
		for i := range cur.Spec.Claims {
			if !own(&cur.Spec.Claims[i], door, id) {
				next.Spec.Claims = append(next.Spec.Claims, cur.Spec.Claims[i])
			}
		}
		switch {
		case len(next.Spec.Claims) == len(cur.Spec.Claims):
			return false, nil
		case len(next.Spec.Claims) > 0:
			_, err = c.Update(ctx, next)
		case cur.Annotations[AnnotationHandMade] != "":
			next.Annotations = maps.Clone(next.Annotations)
			delete(next.Annotations, AnnotationHandMade)
			_, err = c.Update(ctx, next)
		default:
			uid, rv := cur.UID, cur.ResourceVersion
			err = c.Delete(ctx, namespace, name, metav1.Preconditions{UID: &uid, ResourceVersion: &rv})
		}
		if err == nil {
			return true, nil
		}
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return false, err
		}
		last = err
	}
	return false, fmt.Errorf("door/process/claim: deregister %s/%s: gave up after %d conflicts: %w", namespace, name, attempts, last)
}

// Refused says whether the server understood a request and will say no again:
// trying again soon is of no use.
func Refused(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsForbidden(err) ||
		apierrors.IsUnauthorized(err) || apierrors.IsMethodNotSupported(err) || apierrors.IsRequestEntityTooLargeError(err)
}

// Unreachable says whether there was no answer at all.
func Unreachable(err error) bool {
	var status apierrors.APIStatus
	return err != nil && !errors.As(err, &status)
}

func own(c *v1alpha1.Claim, door, id string) bool { return c.Door == door && c.ID == id }

func setAnnotation(in *v1alpha1.Instance, k, v string) {
	if in.Annotations == nil {
		in.Annotations = map[string]string{}
	}
	in.Annotations[k] = v
}
