package object

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/fingerpost/fingerpost/node/agent/envvar"
)

func configMap(v string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"}, Data: map[string]string{"v": v}}
}

func TestStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewSimpleClientset()
		refused := 3
		api.PrependReactor("list", "*", func(clienttesting.Action) (bool, kruntime.Object, error) {
			refused--
			return refused >= 0, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "c", errors.New("no relation to the node yet"))
		})
		s := New(api)
		defer s.Close()
		if _, err := s.ConfigMap(t.Context(), "ns", "c"); err == nil {
			t.Error("given although nobody holds it")
		}
		told := 0
		ref := Ref{ConfigMap, "ns", "c"}
		a := s.Hold([]Ref{ref}, func() { told++ })
		b := s.Hold([]Ref{ref}, func() {})

		begin := time.Now()
		if _, err := s.ConfigMap(t.Context(), "ns", "c"); !errors.Is(err, envvar.ErrNotFound) || time.Since(begin) > time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		want := func(v string) {
			t.Helper()
			synctest.Wait()
			o, err := s.ConfigMap(t.Context(), "ns", "c")
			if err != nil || o.Data["v"] != v {
				t.Errorf("%v %v, want %s", o, err, v)
			}
		}
		maps := api.CoreV1().ConfigMaps("ns")
		if _, err := maps.Create(t.Context(), configMap("1"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		want("1")
		if _, err := maps.Update(t.Context(), configMap("2"), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		want("2")
		a.Release()
		if err := maps.Delete(t.Context(), "c", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := s.ConfigMap(t.Context(), "ns", "c"); !errors.Is(err, envvar.ErrNotFound) {
			t.Error(err)
		}
		if told != 2 {
			t.Errorf("told %d times, want 2", told)
		}
		b.Release()
		synctest.Wait()
		if len(s.entries) != 0 {
			t.Error("a watch is left")
		}
	})
}

func TestAPIAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewSimpleClientset()
		api.PrependReactor("list", "*", func(clienttesting.Action) (bool, kruntime.Object, error) {
			return true, nil, errors.New("no route")
		})
		s := New(api)
		defer s.Close()
		s.Hold([]Ref{{Secret, "ns", "c"}}, func() {})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Secret(ctx, "ns", "c"); err == nil || err.Error() != "no route" {
			t.Error(err)
		}
	})
}
