package claim

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

const (
	requestTimeout = 2 * time.Second  // of the first try; doubled while the server is slow
	requestLimit   = 16 * time.Second // at most
	retryFirst     = 50 * time.Millisecond
	retryFast      = time.Second      // longest pause while the server is away for a short time
	retrySlow      = 5 * time.Second  // longest pause after that
	retryPatience  = 30 * time.Second // where "short" ends
	retryRefused   = 10 * time.Second // longest pause after a no that seems to stay a no
)

// Keeper keeps one registration in the API at the newest state it was given,
// whatever happens to the API meanwhile, and sends the heartbeats.
type Keeper struct {
	client Client
	door   string
	id     string
	ttl    time.Duration
	log    *slog.Logger

	mu   sync.Mutex
	want want
	wake chan struct{} // capacity 1: want has changed

	// Of Run's goroutine only.
	stored *v1alpha1.Instance // as last seen; nil: not known
	ns     string             // where our claim is or may be
	name   string             // "" if nowhere
	tried  string             // the last trouble, as told to the log
}

// want is the state that should be. A nil instance: no claim.
type want struct {
	seq      uint64
	instance *v1alpha1.Instance
	done     chan struct{} // closed when it has been written
}

// NewKeeper makes a keeper of the claim (door, id). ttl 0: the claim has none
// and there are no heartbeats.
func NewKeeper(c Client, door, id string, ttl time.Duration, log *slog.Logger) *Keeper {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{client: c, door: door, id: id, ttl: ttl, log: log, wake: make(chan struct{}, 1)}
}

// Set says what should be from now on; nil: nothing. What was wanted before
// and is not written yet never will be. The channel is closed when it has
// been written; if it is superseded before, never.
func (k *Keeper) Set(in *v1alpha1.Instance) <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.want = want{k.want.seq + 1, in, make(chan struct{})}
	select {
	case k.wake <- struct{}{}:
	default:
	}
	return k.want.done
}

func (k *Keeper) wanted() want {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.want
}

// Run works until ctx ends. It takes nothing down by itself: Set(nil) does.
func (k *Keeper) Run(ctx context.Context) {
	var (
		written   uint64 // the last want that was written
		beat      time.Time
		trouble   time.Time     // since when nothing worked; zero: it does
		pause     time.Duration // before the next try
		timeout   = requestTimeout
		timer     = time.NewTimer(0)
		delay     time.Duration
		heartbeat = k.ttl / 3
	)
	defer timer.Stop()
	for {
		w := k.wanted()
		var err error
		acted := true
		rctx, cancel := context.WithTimeout(ctx, timeout)
		switch now := time.Now(); {
		case w.seq != written:
			if err = k.write(rctx, w.instance); err == nil {
				close(w.done)
				written, beat = w.seq, time.Now().Add(heartbeat)
			}
		case k.ttl > 0 && k.name != "" && !now.Before(beat):
			_, err = k.client.Renew(rctx, k.ns, k.name, &v1alpha1.Renewal{Door: k.door, ID: k.id})
			if apierrors.IsNotFound(err) {
				k.log.Info("the server does not know the claim (any more): registering again", "instance", k.name)
				k.stored = nil
				err = k.write(rctx, w.instance)
			}
			if err == nil {
				beat = now.Add(heartbeat)
			}
		default:
			acted = false
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
		switch {
		case err != nil:
			k.stored = nil
			if trouble.IsZero() {
				trouble = time.Now()
			}
			// A server that starts may refuse at first, so a no is believed slowly.
			limit := retryFast
			switch {
			case Refused(err):
				limit = retryRefused
			case time.Since(trouble) > retryPatience:
				limit = retrySlow
			}
			pause = min(max(2*pause, retryFirst), limit)
			delay = jitter(pause)
			if errors.Is(err, context.DeadlineExceeded) {
				timeout = min(2*timeout, requestLimit)
			} else {
				timeout = requestTimeout
			}
			k.complain(err)
		case acted:
			if !trouble.IsZero() && k.name != "" {
				k.log.Info("the registration is written", "instance", k.name, "away", time.Since(trouble).Round(time.Millisecond))
			}
			trouble, pause, timeout, k.tried = time.Time{}, 0, requestTimeout, ""
			continue // what is wanted may have changed meanwhile
		default:
			if delay = time.Until(beat); k.name == "" || k.ttl == 0 {
				delay = time.Hour
			}
		}
		timer.Reset(delay)
		select {
		case <-ctx.Done():
			return
		case <-k.wake: // something new is worth a try at once
		case <-timer.C:
		}
	}
}

// write makes the API agree with in.
func (k *Keeper) write(ctx context.Context, in *v1alpha1.Instance) error {
	if k.name != "" && (in == nil || in.Name != k.name || in.Namespace != k.ns) {
		if _, err := Remove(ctx, k.client, k.ns, k.name, k.door, k.id); err != nil {
			return err
		}
		k.stored, k.name = nil, ""
	}
	if in == nil {
		return nil
	}
	// Before the answer: a write whose answer is lost may have been done.
	k.ns, k.name = in.Namespace, in.Name
	got, err := Put(ctx, k.client, in, k.stored)
	if err != nil {
		return err
	}
	k.stored = got
	return nil
}

// complain tells each trouble once, not each try.
func (k *Keeper) complain(err error) {
	kind := "away"
	if !Unreachable(err) {
		kind = err.Error()
	}
	if kind == k.tried {
		return
	}
	k.tried = kind
	switch {
	case Unreachable(err):
		k.log.Warn("cannot reach the server: the registration follows when it is back", "error", err)
	case apierrors.IsNotFound(err):
		k.log.Error("cannot register: create the namespace first, or name another with -n; it is tried again meanwhile", "error", err)
	default:
		k.log.Error("the server refuses the registration: nobody finds the endpoint until this is put right", "error", err)
	}
}

func jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/5+1))
}
