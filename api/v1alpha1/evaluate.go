package v1alpha1

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Evaluate recomputes Ready, Serving, Terminating and Health of the status
// from what the doors claim (spec.claims), which heartbeats stopped
// (status.expired) and what the server's checks say (status.check). It is a
// pure function but for the clock, and the API server runs it on every write,
// so that one write takes an instance out everywhere.
//
// The rules, first match wins:
//
//  1. being deleted, or any claim Terminating and none Up: terminating, still serving;
//  2. any claim OutOfService: not ready, still serving (a decision beats any heartbeat);
//  3. all claims expired: out;
//  4. no live claim Up: out, with the first claim's reason;
//  5. a check that is not passing: out;
//  6. otherwise in; marked Stale when every claim that is up is held by the
//     mass-expiry guard and no check says otherwise.
func Evaluate(in *Instance, now time.Time) {
	s := &in.Status
	ready, serving, terminating, h := evaluate(in)
	s.Ready, s.Serving, s.Terminating = ready, serving, terminating
	if s.Health.State == h.State && !s.Health.Since.IsZero() {
		h.Since = s.Health.Since
	} else if h.Since.IsZero() {
		h.Since = metav1.NewMicroTime(now)
	}
	s.Health = h
}

func evaluate(in *Instance) (ready, serving, terminating bool, h Health) {
	var up, down *Claim
	var leaving, starting, out *Claim
	var held, expired *ExpiredClaim
	live, sure := 0, false // sure: a claim is up that nobody doubts
	for i := range in.Spec.Claims {
		c := &in.Spec.Claims[i]
		if c.State == ClaimOutOfService {
			if out == nil {
				out = c
			}
			continue
		}
		e := in.expired(c.Door, c.ID)
		if e != nil && !e.Held {
			if expired == nil || expired.Since.Before(&e.Since) {
				expired = e // the last one to stop is the one that took it out
			}
			continue
		}
		if e != nil && held == nil {
			held = e
		}
		sure = sure || e == nil && (c.State == ClaimUp || c.State == "")
		live++
		switch c.State {
		case ClaimDown:
			if down == nil {
				down = c
			}
		case ClaimStarting:
			if starting == nil {
				starting = c
			}
		case ClaimTerminating:
			if leaving == nil {
				leaving = c
			}
		default:
			if up == nil {
				up = c
			}
		}
	}
	implicit := len(in.Spec.Claims) == 0 // no door claims it: the object itself is the claim
	switch {
	case in.DeletionTimestamp != nil:
		return false, true, true, Health{State: HealthTerminating, Reason: "the object is being deleted", By: "manifest"}
	case leaving != nil && up == nil:
		return false, true, true, Health{State: HealthTerminating, Reason: orElse(leaving.Reason, "it is being stopped"), By: claimant(leaving)}
	case out != nil:
		return false, true, false, Health{State: HealthOutOfService, Reason: orElse(out.Reason, "taken out of service"), By: claimant(out)}
	case live == 0 && !implicit:
		by, since := "lease", metav1.MicroTime{}
		if expired != nil {
			by, since = "lease "+expired.Door, expired.Since
		}
		return false, false, false, Health{State: HealthExpired, Reason: "its heartbeats stopped", By: by, Since: since}
	case up == nil && down != nil:
		return false, false, false, Health{State: HealthFailing, Reason: orElse(down.Reason, "its registrant says it is down"), By: claimant(down)}
	case up == nil && starting != nil:
		return false, false, false, Health{State: HealthStarting, Reason: orElse(starting.Reason, "its registrant says it is starting"), By: claimant(starting)}
	}
	if c := in.Spec.Check; c != nil && c.Type != CheckExec {
		by := "check " + string(c.Type)
		r := in.Status.Check
		switch {
		case r == nil && c.Type == CheckTTL, r != nil && r.State == HealthPassing:
			return true, true, false, Health{State: HealthPassing, By: by}
		case r == nil:
			return false, false, false, Health{State: HealthStarting, Reason: "not checked yet", By: by}
		case r.State == HealthStale:
			return true, true, false, Health{State: HealthStale, Reason: r.Reason, By: by, Since: r.Since}
		default:
			return false, false, false, Health{State: r.State, Reason: r.Reason, By: by, Since: r.Since}
		}
	}
	if held != nil && !sure {
		return true, true, false, Health{State: HealthStale, Reason: "its heartbeats stopped together with many others: kept until it is clear why", By: "lease " + held.Door, Since: held.Since}
	}
	if up != nil {
		if up.TTL != nil || up.Door == "process" {
			return true, true, false, Health{State: HealthPassing, By: claimant(up)}
		}
		return true, true, false, Health{State: HealthUnknown, By: claimant(up)}
	}
	return true, true, false, Health{State: HealthUnknown, By: "manifest"}
}

func (in *Instance) expired(door, id string) *ExpiredClaim {
	for i := range in.Status.Expired {
		if e := &in.Status.Expired[i]; e.Door == door && e.ID == id {
			return e
		}
	}
	return nil
}

func claimant(c *Claim) string {
	if c.Origin == "" {
		return c.Door
	}
	return fmt.Sprintf("%s %s", c.Door, c.Origin)
}

// Doors names the doors an instance came through, comma separated; "kube"
// for one that no door claims.
func (in *Instance) Doors() string {
	var doors []string
next:
	for i := range in.Spec.Claims {
		for _, d := range doors {
			if d == in.Spec.Claims[i].Door {
				continue next
			}
		}
		doors = append(doors, in.Spec.Claims[i].Door)
	}
	if len(doors) == 0 {
		return "kube"
	}
	return strings.Join(doors, ",")
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
