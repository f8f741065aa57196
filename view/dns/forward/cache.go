package forward

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// cache is a hash table in shards. Readers follow atomic pointers and take no
// lock; writers lock their shard. What stays is decided by S3-FIFO (Yang et
// al., SOSP 2023): new keys wait in a small queue and reach the main one only
// if somebody asked for them again, so that a flood of names that are asked
// for once pushes out nothing but itself.
type cache struct {
	seed   maphash.Seed
	shards []shard
}

const (
	shardCount = 32
	// nodeCost is what a node and its entry take besides their bytes.
	nodeCost = 320
	// bucketsPer bytes of the cache there is one chain.
	bucketsPer = 512
)

type shard struct {
	// table's chains end in nil. A node that was taken out keeps its next, so
	// that a reader that stands on it finds its way.
	table []atomic.Pointer[node]

	hits, denials, misses, stales, prefetches, evictions, drops atomic.Uint64

	mu          sync.Mutex
	limit       int // bytes
	small, main queue
	ghosts      []uint32 // keys that left the small queue a while ago, by hash
	_           [64]byte // no two shards in a line
}

// node is a key. Its entry is exchanged when it is asked for anew.
type node struct {
	hash  uint64
	key   string
	next  atomic.Pointer[node]
	entry atomic.Pointer[entry]
	freq  atomic.Uint32 // up to 3: asked for since the last round of its queue
	// failed is when upstreams last failed to renew the entry, renewing when it
	// was last put into the queue for that; nanoseconds, 0 never.
	failed, renewing atomic.Int64

	// Guarded by the shard's lock:
	before, after *node
	cost          int
	inMain        bool
}

// queue is first in, first out; head is the oldest.
type queue struct {
	head, tail *node
	bytes, n   int
}

func (q *queue) push(n *node) {
	n.before, n.after = q.tail, nil
	if q.tail != nil {
		q.tail.after = n
	} else {
		q.head = n
	}
	q.tail = n
	q.bytes += n.cost
	q.n++
}

func (q *queue) remove(n *node) {
	if n.before != nil {
		n.before.after = n.after
	} else {
		q.head = n.after
	}
	if n.after != nil {
		n.after.before = n.before
	} else {
		q.tail = n.before
	}
	n.before, n.after = nil, nil
	q.bytes -= n.cost
	q.n--
}

func newCache(size int) *cache {
	c := &cache{seed: maphash.MakeSeed(), shards: make([]shard, shardCount)}
	buckets := 8
	for buckets*bucketsPer*shardCount < size {
		buckets *= 2
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.table = make([]atomic.Pointer[node], buckets)
		s.ghosts = make([]uint32, buckets*2)
	}
	c.resize(size)
	return c
}

// resize sets the limit in bytes; the number of chains stays.
func (c *cache) resize(size int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.limit = max(size, 0) / shardCount
		s.shrink()
		s.mu.Unlock()
	}
}

func (c *cache) hash(key []byte) uint64 { return maphash.Bytes(c.seed, key) }

func (c *cache) shard(hash uint64) *shard { return &c.shards[hash%shardCount] }

func (s *shard) chain(hash uint64) *atomic.Pointer[node] {
	return &s.table[(hash>>8)&uint64(len(s.table)-1)]
}

func (s *shard) find(hash uint64, key []byte) *node {
	for n := s.chain(hash).Load(); n != nil; n = n.next.Load() {
		if n.hash == hash && n.key == string(key) {
			return n
		}
	}
	return nil
}

// put keeps an entry unless it is too big for the cache.
func (c *cache) put(hash uint64, key string, e *entry) {
	s := c.shard(hash)
	cost := nodeCost + len(key) + e.bytes()
	s.mu.Lock()
	defer s.mu.Unlock()
	if cost > s.limit/4 {
		if n := s.find(hash, []byte(key)); n != nil {
			s.drop(n) // what it says is no longer so
		}
		s.drops.Add(1)
		return
	}
	if n := s.find(hash, []byte(key)); n != nil {
		q := s.queue(n)
		q.bytes += cost - n.cost
		n.cost = cost
		n.entry.Store(e)
		n.failed.Store(0)
		n.renewing.Store(0)
		s.shrink()
		return
	}
	n := &node{hash: hash, key: key, cost: cost}
	n.entry.Store(e)
	if g := &s.ghosts[(hash>>8)%uint64(len(s.ghosts))]; *g == uint32(hash>>32)|1 {
		*g = 0
		n.inMain = true
	}
	s.queue(n).push(n)
	head := s.chain(hash)
	n.next.Store(head.Load())
	head.Store(n)
	s.shrink()
}

func (s *shard) queue(n *node) *queue {
	if n.inMain {
		return &s.main
	}
	return &s.small
}

// shrink brings a shard below its limit.
func (s *shard) shrink() {
	for s.small.bytes+s.main.bytes > s.limit {
		if s.small.head != nil && (s.small.bytes > s.limit/10 || s.main.head == nil) {
			n := s.small.head
			if n.freq.Load() > 0 {
				s.small.remove(n)
				n.freq.Store(0)
				n.inMain = true
				s.main.push(n)
				continue
			}
			s.ghosts[(n.hash>>8)%uint64(len(s.ghosts))] = uint32(n.hash>>32) | 1
			s.drop(n)
		} else {
			n := s.main.head
			if f := n.freq.Load(); f > 0 {
				n.freq.Store(f - 1)
				s.main.remove(n)
				s.main.push(n)
				continue
			}
			s.drop(n)
		}
		s.evictions.Add(1)
	}
}

// drop takes a node out. Readers that hold it may still answer with it.
func (s *shard) drop(n *node) {
	s.queue(n).remove(n)
	at := s.chain(n.hash)
	for p := at.Load(); p != nil; p = at.Load() {
		if p == n {
			at.Store(n.next.Load())
			return
		}
		at = &p.next
	}
}

// purge forgets everything below a zone.
func (c *cache) purge(zone string) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for _, q := range []*queue{&s.small, &s.main} {
			for n := q.head; n != nil; {
				after := n.after
				if within([]byte(n.key[:len(n.key)-5]), []byte(zone)) {
					s.drop(n)
				}
				n = after
			}
		}
		s.mu.Unlock()
	}
}

// size counts entries that say yes, those that say no, and bytes.
func (c *cache) size() (success, denial, bytes int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for _, q := range []*queue{&s.small, &s.main} {
			bytes += q.bytes
			for n := q.head; n != nil; n = n.after {
				if n.entry.Load().denial {
					denial++
				} else {
					success++
				}
			}
		}
		s.mu.Unlock()
	}
	return success, denial, bytes
}

// touch notes a hit; the counter ends at 3 so that a hot node's line stays
// shared by all CPUs.
func (n *node) touch() {
	if f := n.freq.Load(); f < 3 {
		n.freq.Store(f + 1)
	}
}

const (
	// recheck is how long after a failure upstreams are left in peace about an
	// entry that can be given out of date (RFC 8767 §5, "failure recheck").
	recheck  = 5 * time.Second
	staleTTL = 30
	// failureTTL is how long a SERVFAIL of an upstream counts (RFC 9520 §3.2).
	failureTTL = time.Second
)
