package scheduler

import (
	"container/heap"
	"time"

	corev1 "k8s.io/api/core/v1"
)

type key struct{ namespace, name string }

func keyOf(p *corev1.Pod) key { return key{p.Namespace, p.Name} }

func priority(p *corev1.Pod) int32 {
	if p.Spec.Priority != nil {
		return *p.Spec.Priority
	}
	return 0
}

// Waits after failed writes.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 10 * time.Second
)

// entry is a pod that waits.
type entry struct {
	key
	priority int32
	created  time.Time
	order    uint64
	index    int // in the heap; -1: parked until something changes
	failures int
	notUntil time.Time
}

// queue orders the pods that wait. It is not safe for concurrent use.
type queue struct {
	all    map[key]*entry
	ready  entries
	parked map[key]*entry
	later  map[key]*entry // back off after a failed write
	count  uint64
}

func newQueue() *queue {
	return &queue{all: map[key]*entry{}, parked: map[key]*entry{}, later: map[key]*entry{}}
}

// push makes a pod ready.
func (q *queue) push(k key, priority int32, created time.Time) {
	e := q.all[k]
	if e == nil {
		q.count++
		e = &entry{key: k, order: q.count, index: -1}
		q.all[k] = e
	}
	e.priority, e.created, e.failures = priority, created, 0
	q.enqueue(e)
}

func (q *queue) enqueue(e *entry) {
	delete(q.parked, e.key)
	delete(q.later, e.key)
	if e.index >= 0 {
		heap.Fix(&q.ready, e.index)
	} else {
		heap.Push(&q.ready, e)
	}
}

// pop takes the first pod, or says after what time there will be one.
func (q *queue) pop(now time.Time) (key, time.Duration) {
	wait := time.Duration(0)
	for _, e := range q.later {
		if d := e.notUntil.Sub(now); d <= 0 {
			q.enqueue(e)
		} else if wait == 0 || d < wait {
			wait = d
		}
	}
	if q.ready.Len() == 0 {
		return key{}, wait
	}
	return heap.Pop(&q.ready).(*entry).key, 0
}

// park keeps a pod until something changes.
func (q *queue) park(k key) {
	if e := q.all[k]; e != nil && e.index < 0 {
		q.parked[k] = e
	}
}

// back keeps a pod whose write failed for a while.
func (q *queue) back(k key, now time.Time) {
	e := q.all[k]
	if e == nil || e.index >= 0 {
		return
	}
	e.notUntil = now.Add(min(backoffFirst<<min(e.failures, 10), backoffMost))
	e.failures++
	q.later[k] = e
}

// retryAll makes every parked pod ready, and says whether there were any.
func (q *queue) retryAll() bool {
	some := len(q.parked) > 0
	for _, e := range q.parked {
		q.enqueue(e)
	}
	return some
}

func (q *queue) remove(k key) {
	e := q.all[k]
	if e == nil {
		return
	}
	if e.index >= 0 {
		heap.Remove(&q.ready, e.index)
	}
	delete(q.all, k)
	delete(q.parked, k)
	delete(q.later, k)
}

type entries []*entry

func (h entries) Len() int { return len(h) }
func (h entries) Less(i, j int) bool {
	a, b := h[i], h[j]
	if a.priority != b.priority {
		return a.priority > b.priority
	}
	if !a.created.Equal(b.created) {
		return a.created.Before(b.created)
	}
	return a.order < b.order
}
func (h entries) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *entries) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}
func (h *entries) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	e.index = -1
	return e
}
