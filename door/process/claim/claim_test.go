package claim_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/door/process/claim"
	"github.com/fingerpost/fingerpost/door/process/claim/claimtest"
)

func by(door, id string, state v1alpha1.ClaimState) *v1alpha1.Instance {
	in := wanted(80, state, "")
	in.Spec.Claims[0].Door, in.Spec.Claims[0].ID = door, id
	return in
}

func TestPutAndRemoveKeepOtherDoors(t *testing.T) {
	api, ctx := &claimtest.API{}, t.Context()
	eureka, process := by("eureka", "web:1", v1alpha1.ClaimUp), by("process", "h/web-0", v1alpha1.ClaimUp)
	process.Spec.Ports[0].Name = "mine"
	mustPut(t, api, eureka)
	got := mustPut(t, api, process)
	if got.Spec.Ports[0].Name != "" {
		t.Error("the second registrant changed the ports of the first")
	}
	wantDump(t, api, "default/web 127.0.0.1:80 eureka web:1 Up\ndefault/web 127.0.0.1:80 process h/web-0 Up")
	if ok, err := claim.Remove(ctx, api, "default", eureka.Name, "eureka", "web:1"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	wantDump(t, api, "default/web 127.0.0.1:80 process h/web-0 Up")
	if got := mustPut(t, api, process); got.Spec.Ports[0].Name != "mine" {
		t.Error("the only registrant cannot change the ports")
	}
	if ok, err := claim.Remove(ctx, api, "default", eureka.Name, "process", "h/web-0"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	wantDump(t, api, "")
	if ok, err := claim.Remove(ctx, api, "default", eureka.Name, "process", "h/web-0"); ok || err != nil {
		t.Fatalf("removing what is not there: %v, %v", ok, err)
	}
}

// Another door joins between the read and the deletion of what was the last
// claim: the deletion must not take it along.
func TestRemoveDoesNotTakeANewcomerAlong(t *testing.T) {
	api, ctx := &claimtest.API{}, t.Context()
	in := mustPut(t, api, by("process", "h/web-0", v1alpha1.ClaimUp))
	joined := false
	api.Before = func(verb, name string) error {
		if verb == "delete" && !joined {
			joined = true
			mustPut(t, api, by("eureka", "web:1", v1alpha1.ClaimUp))
		}
		return nil
	}
	if ok, err := claim.Remove(ctx, api, "default", in.Name, "process", "h/web-0"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	wantDump(t, api, "default/web 127.0.0.1:80 eureka web:1 Up")
}

func TestHandMadeInstanceOutlivesItsClaims(t *testing.T) {
	api, ctx := &claimtest.API{}, t.Context()
	hand := wanted(80, "", "")
	hand.Spec.Claims = nil
	hand.Spec.Ports[0].Name = "theirs"
	if _, err := api.Create(ctx, hand); err != nil {
		t.Fatal(err)
	}
	mustPut(t, api, by("process", "h/web-0", v1alpha1.ClaimStarting))
	got := mustPut(t, api, by("process", "h/web-0", v1alpha1.ClaimUp))
	if got.Spec.Ports[0].Name != "theirs" {
		t.Error("the ports of a hand-made instance were changed")
	}
	if ok, err := claim.Remove(ctx, api, "default", hand.Name, "process", "h/web-0"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	left := api.Find("default", hand.Name)
	if left == nil || len(left.Spec.Claims) != 0 || len(left.Annotations) != 0 {
		t.Fatalf("left behind: %+v", left)
	}
}

func TestPutReportsWhatTheServerSays(t *testing.T) {
	api := &claimtest.API{}
	in := by("process", "h/web-0", v1alpha1.ClaimUp)
	for _, want := range []error{
		claimtest.ErrAway,
		apierrors.NewForbidden(schema.GroupResource{Resource: "instances"}, in.Name, nil),
		apierrors.NewInvalid(schema.GroupKind{Kind: "Instance"}, in.Name, nil),
	} {
		api.Before = func(string, string) error { return want }
		if _, err := claim.Put(t.Context(), api, in, nil); err != want {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	api.Before = func(verb, _ string) error { // its namespace does not exist
		if verb == "create" {
			return apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "default")
		}
		return nil
	}
	if _, err := claim.Put(t.Context(), api, in, nil); !apierrors.IsNotFound(err) {
		t.Errorf("got %v, want that the namespace is not found", err)
	}
	if !claim.Unreachable(claimtest.ErrAway) || claim.Unreachable(apierrors.NewBadRequest("")) || claim.Unreachable(nil) {
		t.Error("Unreachable is wrong")
	}
}

func TestManyDoorsAtOnce(t *testing.T) {
	api := &claimtest.API{}
	var wg sync.WaitGroup
	const doors = 16
	for i := range doors {
		wg.Go(func() {
			for range 20 {
				in := by(fmt.Sprintf("door%02d", i), "x", v1alpha1.ClaimUp)
				if _, err := claim.Put(t.Context(), api, in, nil); err != nil {
					t.Error(err)
				}
				if i%2 == 0 {
					if _, err := claim.Remove(t.Context(), api, "default", in.Name, in.Spec.Claims[0].Door, "x"); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if n := strings.Count(api.Dump(), "\n"); n != doors/2 {
		t.Errorf("%d claims left, want %d:\n%s", n, doors/2, api.Dump())
	}
}

func mustPut(t *testing.T, api *claimtest.API, in *v1alpha1.Instance) *v1alpha1.Instance {
	t.Helper()
	got, err := claim.Put(t.Context(), api, in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
