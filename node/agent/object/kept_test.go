package object

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	clienttesting "k8s.io/client-go/testing"

	"github.com/fingerpost/fingerpost/node/agent/envvar"
)

// awayClient is one whose API can be away: lists fail, or never end.
type awayClient struct {
	kubernetes.Interface
	away   *atomic.Bool
	silent bool
}

type awayCore struct {
	typed.CoreV1Interface
	awayClient
}

type awayMaps struct {
	typed.ConfigMapInterface
	awayClient
}

type awaySecrets struct {
	typed.SecretInterface
	awayClient
}

func (c awayClient) CoreV1() typed.CoreV1Interface { return awayCore{c.Interface.CoreV1(), c} }

func (c awayCore) ConfigMaps(ns string) typed.ConfigMapInterface {
	return awayMaps{c.CoreV1Interface.ConfigMaps(ns), c.awayClient}
}

func (c awayCore) Secrets(ns string) typed.SecretInterface {
	return awaySecrets{c.CoreV1Interface.Secrets(ns), c.awayClient}
}

// answer waits for one as long as a connection that is broken off by the
// network may last.
func (c awayClient) answer(ctx context.Context) error {
	if !c.away.Load() {
		return nil
	}
	if c.silent {
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Second):
		}
	}
	return errors.New("connection refused")
}

func (c awayMaps) List(ctx context.Context, o metav1.ListOptions) (*corev1.ConfigMapList, error) {
	if err := c.answer(ctx); err != nil {
		return nil, err
	}
	return c.ConfigMapInterface.List(ctx, o)
}

func (c awaySecrets) List(ctx context.Context, o metav1.ListOptions) (*corev1.SecretList, error) {
	if err := c.answer(ctx); err != nil {
		return nil, err
	}
	return c.SecretInterface.List(ctx, o)
}

// TestKept: a store of the same directory gives what the one before it saw if
// the API refuses or says nothing, and the API's word when it is back.
func TestKept(t *testing.T) {
	for _, silent := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "objects")
		synctest.Test(t, func(t *testing.T) {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}, Data: map[string][]byte{"k": []byte("v")}}
			api := fake.NewSimpleClientset(configMap("1"), secret)
			away := &atomic.Bool{}
			client := awayClient{api, away, silent}
			refs := []Ref{{ConfigMap, "ns", "c"}, {Secret, "ns", "s"}, {ConfigMap, "ns", "never"}}
			s := Open(client, dir, slog.New(slog.DiscardHandler))
			s.Hold(refs, func() {})
			synctest.Wait()
			s.Close()
			info, err := os.Stat(filepath.Join(dir, "secret", "ns", "s"))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Fatalf("the secret's file: %v %v", info, err)
			}

			away.Store(true)
			s = Open(client, dir, slog.New(slog.DiscardHandler))
			told := 0
			h := s.Hold(refs, func() { told++ })
			begin := time.Now()
			o, err := s.ConfigMap(t.Context(), "ns", "c")
			if err != nil || o.Data["v"] != "1" || time.Since(begin) > keptPatience {
				t.Errorf("without the API, after %s: %v %v", time.Since(begin), o, err)
			}
			if o, err := s.Secret(t.Context(), "ns", "s"); err != nil || string(o.Data["k"]) != "v" {
				t.Errorf("without the API: %v %v", o, err)
			}
			if err := api.Tracker().Update(corev1.SchemeGroupVersion.WithResource("configmaps"), configMap("2"), "ns"); err != nil {
				t.Fatal(err)
			}
			away.Store(false)
			time.Sleep(time.Minute)
			synctest.Wait()
			if o, err := s.ConfigMap(t.Context(), "ns", "c"); err != nil || o.Data["v"] != "2" || told == 0 {
				t.Errorf("with the API back, told %d times: %v %v", told, o, err)
			}
			if _, err := s.ConfigMap(t.Context(), "ns", "never"); !errors.Is(err, envvar.ErrNotFound) {
				t.Errorf("what was never there: %v", err)
			}

			// What nobody uses any more is forgotten, and what was deleted at once.
			if err := api.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("secrets"), "ns", "s"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if _, err := os.Stat(filepath.Join(dir, "secret", "ns", "s")); !os.IsNotExist(err) {
				t.Errorf("a deleted secret is kept: %v", err)
			}
			file := filepath.Join(dir, "configmap", "ns", "c")
			if err := s.Sweep(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("what is used is forgotten: %v", err)
			}
			h.Release()
			if err := s.Sweep(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(file); !os.IsNotExist(err) {
				t.Errorf("what nobody uses is kept: %v", err)
			}
			s.Close()
		})
	}
}

// TestKeptBad: a damaged file is as none.
func TestKeptBad(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewSimpleClientset()
		api.PrependReactor("list", "*", func(clienttesting.Action) (bool, kruntime.Object, error) {
			return true, nil, errors.New("connection refused")
		})
		path := filepath.Join(dir, "configmap", "ns", "c")
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("{"), 0o600)); err != nil {
			t.Fatal(err)
		}
		s := Open(api, dir, slog.New(slog.DiscardHandler))
		defer s.Close()
		s.Hold([]Ref{{ConfigMap, "ns", "c"}}, func() {})
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if e := s.entries[Ref{ConfigMap, "ns", "c"}]; e.seen {
			t.Errorf("given: %v", e.obj)
		}
	})
}
