package process

import "time"

// backoff says how long to wait before the next try: small first, so that a
// single crash costs little, then doubling up to the limit.
type backoff struct {
	first, limit time.Duration
	forgive      time.Duration // after this long without trouble it starts over
	next         time.Duration
}

// after gives the delay that follows a try which went well for ran.
func (b *backoff) after(ran time.Duration) time.Duration {
	if b.next == 0 || b.forgive > 0 && ran >= b.forgive {
		b.next = b.first
	}
	d := b.next
	b.next = min(2*b.next, b.limit)
	return d
}

func restartBackoff() backoff {
	return backoff{first: 250 * time.Millisecond, limit: 30 * time.Second, forgive: 30 * time.Second}
}
