package claim_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/door/process/claim"
	"github.com/fingerpost/fingerpost/door/process/claim/claimtest"
)

const ttl = 15 * time.Second

func wanted(port int32, state v1alpha1.ClaimState, reason string) *v1alpha1.Instance {
	return &v1alpha1.Instance{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: v1alpha1.InstanceName("web", "127.0.0.1", port)},
		Spec: v1alpha1.InstanceSpec{
			Service: "web", Address: "127.0.0.1", NodeName: "h", Ports: []v1alpha1.InstancePort{{Port: port}},
			Claims: []v1alpha1.Claim{{Door: "process", ID: "h/web-0", State: state, Reason: reason, TTL: &metav1.Duration{Duration: ttl}}},
		},
	}
}

// keep runs a keeper inside a bubble until f returns.
func keep(t *testing.T, api *claimtest.API, f func(*claim.Keeper)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := claim.NewKeeper(api, "process", "h/web-0", ttl, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { k.Run(ctx); close(done) }()
		f(k)
		cancel()
		<-done
	})
}

func wantDump(t *testing.T, api *claimtest.API, want string) {
	t.Helper()
	if got := strings.TrimSpace(api.Dump()); got != want {
		t.Fatalf("the API holds\n%s\nwant\n%s", got, want)
	}
}

func TestKeeperRegistersAndRenews(t *testing.T) {
	api := &claimtest.API{}
	keep(t, api, func(k *claim.Keeper) {
		<-k.Set(wanted(80, v1alpha1.ClaimStarting, "not ready yet"))
		wantDump(t, api, "default/web 127.0.0.1:80 process h/web-0 Starting (not ready yet)")
		<-k.Set(wanted(80, v1alpha1.ClaimUp, ""))
		wantDump(t, api, "default/web 127.0.0.1:80 process h/web-0 Up")
		if n := api.Count("get") + api.Count("update") + api.Count("create"); n != 3 {
			t.Errorf("two states took %d requests, want 3 (get, create, update): %v", n, api.Calls())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := api.Count("renew"); n != 12 {
			t.Errorf("%d heartbeats in a minute, want one each TTL/3: 12", n)
		}
		<-k.Set(nil)
		wantDump(t, api, "")
		time.Sleep(time.Minute)
		if n := api.Count("renew"); n != 12 {
			t.Errorf("a removed claim was renewed")
		}
	})
}

func TestKeeperServerAwayAtStart(t *testing.T) {
	api := &claimtest.API{}
	api.SetAway(true)
	keep(t, api, func(k *claim.Keeper) {
		k.Set(wanted(80, v1alpha1.ClaimStarting, ""))
		time.Sleep(5 * time.Second)
		k.Set(wanted(80, v1alpha1.ClaimDown, "exited"))
		time.Sleep(5 * time.Second)
		done := k.Set(wanted(80, v1alpha1.ClaimUp, ""))
		synctest.Wait()
		api.SetAway(false)
		back := time.Now()
		<-done
		if d := time.Since(back); d > time.Second {
			t.Errorf("registered %s after the server was back, want at most 1s", d)
		}
		wantDump(t, api, "default/web 127.0.0.1:80 process h/web-0 Up")
		if n := api.Count("create") + api.Count("update"); n != 1 {
			t.Errorf("%d writes, want only the newest state: %v", n, api.Calls())
		}
	})
}

func TestKeeperServerAwayInTheMiddle(t *testing.T) {
	api := &claimtest.API{}
	keep(t, api, func(k *claim.Keeper) {
		<-k.Set(wanted(80, v1alpha1.ClaimUp, ""))
		api.SetAway(true)
		time.Sleep(time.Hour)
		synctest.Wait()
		api.Clear() // it comes back empty
		api.SetAway(false)
		time.Sleep(5 * time.Second) // slow retries by now
		synctest.Wait()
		wantDump(t, api, "default/web 127.0.0.1:80 process h/web-0 Up")
	})
}

func TestKeeperForgottenByTheServer(t *testing.T) {
	api := &claimtest.API{}
	keep(t, api, func(k *claim.Keeper) {
		<-k.Set(wanted(80, v1alpha1.ClaimUp, ""))
		api.Clear()
		time.Sleep(ttl / 3)
		synctest.Wait()
		wantDump(t, api, "default/web 127.0.0.1:80 process h/web-0 Up")
	})
}

func TestKeeperHangingServer(t *testing.T) {
	api := &claimtest.API{}
	keep(t, api, func(k *claim.Keeper) {
		<-k.Set(wanted(80, v1alpha1.ClaimUp, ""))
		slow := true
		api.Before = func(string, string) error {
			if slow {
				time.Sleep(3 * time.Second) // longer than the first time-out
			}
			return nil
		}
		<-k.Set(wanted(80, v1alpha1.ClaimDown, "exited"))
		slow = false
		wantDump(t, api, "default/web 127.0.0.1:80 process h/web-0 Down (exited)")
	})
}

func TestKeeperRefusedIsNotHammered(t *testing.T) {
	api := &claimtest.API{}
	tries := 0
	api.Before = func(string, string) error {
		tries++
		return apierrors.NewForbidden(schema.GroupResource{Resource: "instances"}, "x", nil)
	}
	keep(t, api, func(k *claim.Keeper) {
		k.Set(wanted(80, v1alpha1.ClaimUp, ""))
		time.Sleep(time.Minute)
		synctest.Wait()
		if tries < 8 || tries > 16 {
			t.Errorf("%d tries in a minute, want a few fast ones and then one each 10s", tries)
		}
	})
}

func TestKeeperMoves(t *testing.T) {
	api := &claimtest.API{}
	keep(t, api, func(k *claim.Keeper) {
		<-k.Set(wanted(80, v1alpha1.ClaimUp, ""))
		<-k.Set(wanted(81, v1alpha1.ClaimStarting, ""))
		wantDump(t, api, "default/web 127.0.0.1:81 process h/web-0 Starting")
	})
}
