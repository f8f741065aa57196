package relay

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
)

// message is what the kernel sends about a flow that went to an address.
func message(kind uint16, body []byte) []byte {
	ne := binary.NativeEndian
	b := ne.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = ne.AppendUint16(b, kind)
	b = ne.AppendUint16(b, unix.NLM_F_MULTI)
	return append(ne.AppendUint32(ne.AppendUint32(b, 7), 0), body...)
}

// told is a question turned into an answer: the tuple is that of the client.
func told(proto catalog.Protocol, client, to netip.AddrPort) []byte {
	q := question(proto, to, client) // from client to to
	at := headerLen + 2              // the type of the first attribute
	binary.NativeEndian.PutUint16(q[at:], ctaOrig|unix.NLA_F_NESTED)
	return q
}

func TestDestination(t *testing.T) {
	for _, c := range []struct {
		proto      catalog.Protocol
		client, to string
	}{
		{catalog.TCP, "10.244.1.11:40000", "10.96.0.1:80"},
		{catalog.UDP, "[fd24::11]:40000", "[fd96::1]:53"},
	} {
		want := netip.MustParseAddrPort(c.to)
		seq, body, err := answer(message(ctGet, told(c.proto, netip.MustParseAddrPort(c.client), want)))
		if err != nil || seq != 7 {
			t.Fatalf("%d, %v", seq, err)
		}
		if got, err := destination(body); err != nil || got != want {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
	refusal := binary.NativeEndian.AppendUint32(nil, uint32(0x100000000-uint64(unix.ENOENT)))
	if _, _, err := answer(message(unix.NLMSG_ERROR, refusal)); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v, want ENOENT", err)
	}
}

// FuzzAnswer: whatever comes is decoded without harm.
func FuzzAnswer(f *testing.F) {
	whole := message(ctGet, told(catalog.TCP, netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2")))
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add(whole[:17])
	f.Add(message(unix.NLMSG_ERROR, nil))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if _, body, err := answer(b); err == nil {
			_, _ = destination(body)
		}
	})
}
