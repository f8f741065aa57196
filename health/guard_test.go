package health

import (
	"testing"
	"time"
)

// Clients that renew just before the deadline are not taken for silent.
func TestLateRenewersDoNotHoldADeadOne(t *testing.T) {
	b := newTable(t)
	b.put("i", 20, 0)
	b.Expire(at(11.5))
	b.beat("i", 0, 20, 12) // from here on they are known
	b.Expire(at(23.5))
	b.beat("i", 1, 20, 24)
	var got []Transition
	for now := 24.0; now < 28; now += 0.5 {
		got = append(got, b.Expire(at(now))...)
	}
	if len(got) != 1 || got[0].Kind != WentOut || !got[0].At.Equal(at(27)) {
		t.Errorf("told %+v", got)
	}
}

// 15 % and less go on time; a little more is held, from the first one on.
func TestShare(t *testing.T) {
	for _, tc := range []struct{ n, dead, out, held int }{
		{100, 15, 15, 0},
		{100, 16, 0, 16},
		{20, 3, 3, 0},
		{20, 4, 0, 4},
		{10, 2, 2, 0}, // 20 %, but fewer than MinOut
		{10, 3, 0, 3},
		{9, 9, 9, 0}, // a small group
	} {
		b := newTable(t)
		b.put("i", tc.n, 0)
		out, held, _ := b.run(0, 60, "i", tc.dead, tc.n)
		if len(out) != tc.out || len(held) != tc.held {
			t.Errorf("%d of %d dead: %d out, %d held, want %d and %d", tc.dead, tc.n, len(out), len(held), tc.out, tc.held)
		}
	}
}

// Heartbeats are spread over time; then the way to us breaks: all are held,
// also the first one, and nobody is ever out.
func TestPartition(t *testing.T) {
	b := newTable(t)
	for i := range 100 {
		b.Put(name("i", i), "zone-a", "svc", ttl, at(0))
	}
	beats := func(from, to float64) (told []Transition) { // each every 5 s, one after the other
		for ms := int(from * 1000); ms < int(to*1000); ms += 50 {
			now := t0.Add(time.Duration(ms) * time.Millisecond)
			b.Renew(name("i", ms/50%100), now)
			told = append(told, b.Expire(now)...)
		}
		return told
	}
	if told := beats(0, 60); len(told) > 0 {
		t.Fatalf("told %v while all is well", told)
	}
	held := 0
	for ms := 60_000; ms < 120_000; ms += 50 {
		for _, tr := range b.Expire(t0.Add(time.Duration(ms) * time.Millisecond)) {
			if tr.Kind != WentHeld {
				t.Fatalf("%s %v at %d ms", tr.Key, tr.Kind, ms)
			}
			held++
		}
	}
	if held != 100 {
		t.Errorf("%d held, want 100", held)
	}
	b.wantState("i-000", Stale)
	revived := 0
	for _, tr := range beats(120, 180) {
		if tr.Kind != Revived {
			t.Errorf("%s %v after it healed", tr.Key, tr.Kind)
		}
		revived++
	}
	if revived != 100 {
		t.Errorf("%d revived, want 100", revived)
	}
}

// The way heals and some do not come back: they are dead, and go one TTL after
// the mass expiry is over, also the only ones of a service.
func TestHoldEndsByRecovery(t *testing.T) {
	b := newTable(t)
	b.put("i", 50, 0)
	out, held, _ := b.run(0, 60, "i", 40, 50)
	if len(out) != 0 || len(held) != 40 {
		t.Fatalf("%d out, %d held", len(out), len(held))
	}
	out, _, revived := b.run(60.5, 120, "i", 2, 50) // i-000 and i-001 are a service
	if len(revived) != 38 {
		t.Errorf("%d revived, want 38", len(revived))
	}
	b.want("out", out, "i-000@90", "i-001@90")
}

// The hold has a bound; what it ends with has somebody left in its service.
func TestHoldEndsByPatience(t *testing.T) {
	b := newTable(t)
	b.put("i", 50, 0) // services of two: 10 and 11 …
	out, held, _ := b.run(0, 600, "i", 11, 50)
	if len(out) != 0 || len(held) != 11 {
		t.Fatalf("%d out, %d held", len(out), len(held))
	}
	out, _, _ = b.run(600.5, 3600, "i", 11, 50)
	b.want("out after the bound", out, "i-010@615") // the only one with a living brother
	for i := range 10 {
		b.wantState(name("i", i), Stale)
	}
	// One of a service comes back: the other can go.
	b.Renew("i-004", at(3601))
	out, _, revived := b.run(3601, 3620, "i", 11, 50)
	b.want("revived", revived, "i-004@3601")
	b.want("out, with i-004 which stopped again", out, "i-005@3615")
	b.wantState("i-004", Stale)
}

func TestWholeGroupIsNeverEmptiedByPatience(t *testing.T) {
	b := newTable(t)
	b.put("i", 30, 0)
	out, held, _ := b.run(0, 3600, "i", 30, 30)
	if len(out) != 0 || len(held) != 30 {
		t.Errorf("%d out, %d held, want 0 and 30", len(out), len(held))
	}
}

func TestGroupsAreApart(t *testing.T) {
	b := newTable(t)
	b.put("i", 30, 0)
	for i := range 30 {
		b.Put(name("j", i), "zone-b", "svc-j", ttl, at(0))
	}
	b.beat("j", 1, 30, 10)
	told := b.Expire(at(15))
	var out, held int
	for _, tr := range told {
		switch {
		case tr.Kind == WentHeld && tr.Group == "zone-a":
			held++
		case tr.Kind == WentOut && tr.Key == "j-000":
			out++
		}
	}
	if out != 1 || held != 30 || len(told) != 31 {
		t.Errorf("%d out, %d held of %d", out, held, len(told))
	}
}
