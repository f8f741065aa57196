package apiserver

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
	"github.com/fingerpost/fingerpost/store"
)

// TestStoredByTheFirstVersion: objects of our own kinds that were stored as
// JSON, recorded from a store of the version that did so, are read, and are
// stored as protobuf from their next change on.
func TestStoredByTheFirstVersion(t *testing.T) {
	dir := t.TempDir()
	st, err := store.Open(t.Context(), store.Config{Dir: dir, UnsafeNoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	const instanceKey, poolKey = "/registry/fingerpost.dev/instances/default/web-1", "/registry/fingerpost.dev/addresspools/lan"
	recorded := func(key, file string, into any) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Direct().Put(t.Context(), key, string(b)); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, into); err != nil {
			t.Fatal(err)
		}
	}
	stored := func(key string) []byte {
		t.Helper()
		r, err := st.Direct().Client.Get(t.Context(), key)
		if err != nil || len(r.Kvs) != 1 {
			t.Fatalf("%s: %v", key, err)
		}
		return r.Kvs[0].Value
	}
	var want v1alpha1.Instance
	var wantPool v1alpha1.AddressPool
	recorded(instanceKey, "stored-instance.json", &want)
	recorded(poolKey, "stored-addresspool.json", &wantPool)

	s := start(t, st, filepath.Join(dir, "pki"), nil)
	c, err := client.New(s.rest)
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.Instances("default").Get(t.Context(), "web-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	version := in.ResourceVersion
	in.ResourceVersion, want.TypeMeta, in.TypeMeta = "", metav1.TypeMeta{}, metav1.TypeMeta{}
	if d := cmp.Diff(&want, in); d != "" {
		t.Errorf("stored (-), served (+):\n%s", d)
	}
	pool, err := c.AddressPools().Get(t.Context(), "lan", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	poolVersion := pool.ResourceVersion
	pool.ResourceVersion, wantPool.TypeMeta, pool.TypeMeta = "", metav1.TypeMeta{}, metav1.TypeMeta{}
	if d := cmp.Diff(&wantPool, pool); d != "" {
		t.Errorf("stored (-), served (+):\n%s", d)
	}
	if l, err := c.Instances("").List(t.Context(), metav1.ListOptions{}); err != nil || len(l.Items) != 1 || l.Items[0].Name != "web-1" {
		t.Errorf("the list: %v, %v", l, err)
	}

	in.ResourceVersion, in.Annotations["more"] = version, "yes"
	if _, err := c.Instances("default").Update(t.Context(), in, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	pool.ResourceVersion, pool.Labels = poolVersion, map[string]string{"more": "yes"}
	if _, err := c.AddressPools().Update(t.Context(), pool, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{instanceKey, poolKey} {
		if b := stored(key); !bytes.HasPrefix(b, []byte("k8s\x00")) {
			t.Errorf("%s is stored as %.40q, want protobuf", key, b)
		}
	}
	again, err := c.Instances("default").Get(t.Context(), "web-1", metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want.Spec, again.Spec); d != "" {
		t.Errorf("after a change, stored (-), served (+):\n%s", d)
	}
	if d := cmp.Diff(want.Status.Expired, again.Status.Expired); d != "" {
		t.Errorf("after a change, stored (-), served (+):\n%s", d)
	}
}
