package ingress

import (
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// TestSourceHoldsUntilRead: an Ingress that comes to name a Secret that is there
// is never closed in between, and nobody is told that it is missing.
func TestSourceHoldsUntilRead(t *testing.T) {
	const secret = `apiVersion: v1
kind: Secret
metadata: {name: users}
data: {auth: am9lOntTSEF9VzZwaDVNbTVQejhHZ2lVTGJQZ3pHMzdtajlnPQo=}
`
	var closed atomic.Bool
	r := start(t, func(c *Config) {
		hand := c.OnUpdate
		c.OnUpdate = func(u route.Update) {
			for _, h := range u.Hosts {
				for i := range h.Rules {
					if h.Rules[i].Problem != "" {
						closed.Store(true)
					}
				}
			}
			hand(u)
		}
	}, parseObjects(t, []byte(oneIngress+"\n---\n"+oneService+"\n---\n"+secret))...)
	in, err := r.client.NetworkingV1().Ingresses("default").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	in.Annotations = map[string]string{Prefix + "/auth-type": "basic", Prefix + "/auth-secret": "users"}
	if _, err := r.client.NetworkingV1().Ingresses("default").Update(t.Context(), in, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.until("a password is asked for", func() bool {
		got := r.rule("shop.example.com")
		return got != nil && got.Policy.Basic != nil && len(got.Policy.Basic.Users) > 0
	})
	if closed.Load() {
		t.Error("the rule was closed until the Secret was read")
	}
	select {
	case e := <-r.events.Events:
		t.Errorf("an event: %s", e)
	default:
	}
}
