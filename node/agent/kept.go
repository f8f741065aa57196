package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// apiPatience is how long an agent that has something to go on with waits
	// for the API before it does.
	apiPatience = 3 * time.Second
	// keptLate is how late a change may be on disk.
	keptLate = 200 * time.Millisecond
)

// kept is what the agent keeps on disk of the API, so that one that is started
// while the API is away can go on with the pods that run.
type kept struct {
	a    *Agent
	wake chan struct{} // capacity 1

	mu    sync.Mutex
	dirty map[*pod]struct{}
}

func newKept(a *Agent) *kept {
	return &kept{a: a, wake: make(chan struct{}, 1), dirty: map[*pod]struct{}{}}
}

func (c *Config) keptNode() string          { return filepath.Join(c.Dir, "node.json") }
func (c *Config) keptPod(uid string) string { return filepath.Join(c.podDir(uid), "pod.json") }
func (c *Config) keptObjects() string       { return filepath.Join(c.volatileDir(), objectsDir) }

// objectsDir is where ConfigMaps and Secrets are kept: in memory, like the
// volumes made from them.
const objectsDir = "objects"

// changed notes that a pod, or its status, is not what it was. The pod's lock
// may be held.
func (k *kept) changed(p *pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dirty[p] = struct{}{}
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run writes what changed until ctx ends.
func (k *kept) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		}
		select { // what changes comes in company
		case <-ctx.Done():
			return
		case <-time.After(keptLate):
		}
		k.flush()
	}
}

func (k *kept) flush() {
	k.mu.Lock()
	dirty := k.dirty
	k.dirty = map[*pod]struct{}{}
	k.mu.Unlock()
	for p := range dirty {
		if err := k.write(p); err != nil {
			k.a.cfg.Log.Warn("a pod cannot be kept on disk: without the API the next agent does not know of it", "pod", p.namespace+"/"+p.name, "error", err)
		}
	}
}

// write writes a pod. One without a directory has nothing to go on with.
func (k *kept) write(p *pod) error {
	obj := p.current()
	obj.ManagedFields = nil
	text, err := json.Marshal(obj)
	if err != nil {
		return err
	}
	// A pod that is gone loses its directory, with the lock held.
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return nil
	}
	if err := replaceFile(k.a.cfg.keptPod(p.uid), text); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// replaceFile writes a file that is there as a whole or not at all. It may hold
// secrets, as pods do.
func replaceFile(path string, text []byte) error {
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// keepNode writes the Node object.
func (k *kept) keepNode(obj *corev1.Node) {
	text, err := json.Marshal(&corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: obj.Name, UID: obj.UID, Labels: obj.Labels, Annotations: obj.Annotations,
	}, Spec: obj.Spec, Status: obj.Status})
	if err == nil {
		err = replaceFile(k.a.cfg.keptNode(), text)
	}
	if err != nil {
		k.a.cfg.Log.Warn("the node cannot be kept on disk: the next agent runs no pods before the API answers", "error", err)
	}
}

// node gives the Node object of an earlier agent; nil if there is none.
func (k *kept) node() *corev1.Node {
	obj := &corev1.Node{}
	if err := readKept(k.a.cfg.keptNode(), obj); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			k.a.cfg.Log.Warn("what was kept of the node is of no use", "error", err)
		}
		return nil
	}
	if obj.Name != k.a.cfg.NodeName {
		return nil
	}
	return obj
}

// pods gives the pods of an earlier agent.
func (k *kept) pods() (list []*corev1.Pod) {
	entries, err := os.ReadDir(k.a.cfg.podsDir())
	if err != nil {
		k.a.cfg.Log.Warn("pods of an earlier agent cannot be found", "error", err)
	}
	for _, e := range entries {
		obj := &corev1.Pod{}
		err := readKept(k.a.cfg.keptPod(e.Name()), obj)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err == nil && string(obj.UID) != e.Name():
			err = fmt.Errorf("it is of %q", obj.UID)
			fallthrough
		case err != nil:
			k.a.cfg.Log.Warn("what was kept of a pod is of no use", "uid", e.Name(), "error", err)
		case obj.Spec.NodeName == k.a.cfg.NodeName:
			obj.ResourceVersion = "" // whatever the API says is newer
			list = append(list, obj)
		}
	}
	return list
}

func readKept(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}
