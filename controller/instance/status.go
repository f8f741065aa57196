package instance

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/health"
)

// defaultDeregisterAfter is how long an Instance may be without heartbeats.
const defaultDeregisterAfter = 10 * time.Minute

// syncStatus writes what an Instance's status lacks, and deletes an Instance
// whose time has come.
func (c *Controller) syncStatus(ctx context.Context, n name) error {
	in, err := c.lister.Get(n.Namespace, n.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	r := c.cfg.Liveness.table.get(n)
	if r == nil || r.uid != in.UID {
		return nil // one of the two is about to change, and will bring us back
	}
	expired, check := c.expired(in, r), c.result(n, in, r)
	if !expiredEqual(expired, in.Status.Expired) || !resultEqual(check, in.Status.Check) {
		return c.patch(ctx, in, expired, check)
	}
	return c.reap(ctx, n, in, r)
}

// patch writes both fields; the API server derives the others from them.
func (c *Controller) patch(ctx context.Context, in *v1alpha1.Instance, expired []v1alpha1.ExpiredClaim, check *v1alpha1.CheckResult) error {
	type status struct {
		Expired []v1alpha1.ExpiredClaim `json:"expired"`
		Check   map[string]any          `json:"check"`
	}
	body := struct {
		Metadata map[string]any `json:"metadata"`
		Status   status         `json:"status"`
	}{map[string]any{"uid": in.UID}, status{Expired: expired}}
	if check != nil {
		// All fields are given, or a merge would leave those of before.
		body.Status.Check = map[string]any{"state": check.State, "since": check.Since, "reason": nil}
		if check.Reason != "" {
			body.Status.Check["reason"] = check.Reason
		}
	}
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("controller/instance: write status of %s/%s: %w", in.Namespace, in.Name, err)
	}
	_, err = c.cfg.Instances.Instances(in.Namespace).Patch(ctx, in.Name, types.MergePatchType, b, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("controller/instance: write status of %s/%s: %w", in.Namespace, in.Name, err)
	}
	c.metrics.writes.WithLabelValues("status").Inc()
	return nil
}

// expired computes status.expired.
func (c *Controller) expired(in *v1alpha1.Instance, r *entry) []v1alpha1.ExpiredClaim {
	var out []v1alpha1.ExpiredClaim
	for _, cl := range r.claims {
		if cl.check || cl.key == "" {
			continue
		}
		st, ok := c.cfg.Liveness.leases.Get(cl.key)
		if !ok {
			continue
		}
		was := expiredEntry(in, cl.door, cl.id)
		if was != nil && !was.Held && !cl.heard.Load() {
			out = append(out, *was) // out before this process began, and silent since
			continue
		}
		if st.State == health.Passing {
			if was != nil && !cl.heard.Load() {
				out = append(out, *was)
			}
			continue
		}
		e := v1alpha1.ExpiredClaim{Door: cl.door, ID: cl.id, Since: micro(st.Since), Held: st.State == health.Stale}
		out = append(out, e)
	}
	return out
}

// result computes status.check.
func (c *Controller) result(n name, in *v1alpha1.Instance, r *entry) *v1alpha1.CheckResult {
	was := in.Status.Check
	next := func(state v1alpha1.HealthState, reason string, since time.Time) *v1alpha1.CheckResult {
		if was != nil && was.State == state && (state != v1alpha1.HealthStarting || was.Reason == reason) {
			return was // written already: the reason is that of the transition
		}
		return &v1alpha1.CheckResult{State: state, Reason: reason, Since: micro(since)}
	}
	if cl := r.find("", "", true); cl != nil {
		st, ok := c.cfg.Liveness.leases.Get(cl.key)
		if !ok {
			return was
		}
		silent := st.Since.Sub(st.Last).Round(time.Millisecond)
		switch {
		case was != nil && was.State == v1alpha1.HealthExpired && !cl.heard.Load():
			return was
		case st.State == health.Expired:
			return next(v1alpha1.HealthExpired, fmt.Sprintf("no heartbeat for %s", silent), st.Since)
		case st.State == health.Stale:
			return next(v1alpha1.HealthStale, fmt.Sprintf("no heartbeat for %s, like many others: kept until it is clear why", silent), st.Since)
		case was == nil || was.State == v1alpha1.HealthStale && !cl.heard.Load():
			return was
		}
		return next(v1alpha1.HealthPassing, "", time.Now())
	}
	spec, why := c.probeOf(in)
	switch {
	case spec == nil:
		return nil
	case why != "":
		return next(v1alpha1.HealthStarting, why, time.Now())
	}
	state, reason, since, ok := c.runner.State(n.String())
	if !ok || state == health.Starting {
		if was != nil && was.State == v1alpha1.HealthStarting {
			return nil // could not be checked before, and can be now
		}
		return was
	}
	return next(v1alpha1.HealthState(state), reason, since)
}

// reap deletes an Instance that was out for too long, or comes back when that
// will be.
func (c *Controller) reap(ctx context.Context, n name, in *v1alpha1.Instance, r *entry) error {
	since, after := c.outSince(in, r)
	if since.IsZero() || in.DeletionTimestamp != nil {
		return nil
	}
	if since.Before(c.started) {
		since = c.started
	}
	if wait := time.Until(since.Add(after)); wait > 0 {
		c.status.AddAfter(n, wait)
		return nil
	}
	err := c.cfg.Instances.Instances(n.Namespace).Delete(ctx, n.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &in.UID, ResourceVersion: &in.ResourceVersion}})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("controller/instance: delete %s, which was out for %s: %w", n, after, err)
	}
	c.metrics.writes.WithLabelValues("delete").Inc()
	c.cfg.Log.Info("deleted an instance that was out for too long", "instance", n, "after", after)
	return nil
}

// outSince says since when an Instance counts as out for its deletion, zero if
// it does not, and how long it may be.
func (c *Controller) outSince(in *v1alpha1.Instance, r *entry) (since time.Time, after time.Duration) {
	k := in.Spec.Check
	after = defaultDeregisterAfter
	given := k != nil && k.DeregisterAfter != nil
	if given {
		after = k.DeregisterAfter.Duration
	}
	for _, cl := range r.claims {
		if cl.key == "" && !cl.check {
			since = time.Time{}
			break // a claim that does not expire keeps it alive
		}
		if cl.check {
			continue
		}
		e := expiredEntry(in, cl.door, cl.id)
		if e == nil || e.Held {
			since = time.Time{}
			break
		}
		if e.Since.After(since) {
			since = e.Since.Time
		}
	}
	if s := in.Status.Check; since.IsZero() && s != nil {
		ttl := k != nil && k.Type == v1alpha1.CheckTTL && s.State == v1alpha1.HealthExpired
		if ttl || given && s.State == v1alpha1.HealthFailing {
			since = s.Since.Time
		}
	}
	return since, after
}

func micro(t time.Time) metav1.MicroTime { return metav1.NewMicroTime(t.Truncate(time.Microsecond)) }

func expiredEqual(a, b []v1alpha1.ExpiredClaim) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		found := false
		for j := range b {
			found = found || a[i].Door == b[j].Door && a[i].ID == b[j].ID && a[i].Held == b[j].Held && a[i].Since.Equal(&b[j].Since)
		}
		if !found {
			return false
		}
	}
	return true
}

func resultEqual(a, b *v1alpha1.CheckResult) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.State == b.State && a.Reason == b.Reason && a.Since.Equal(&b.Since)
}
