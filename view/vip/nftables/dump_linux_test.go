package nftables

import (
	"encoding/binary"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// sample is a message with two elements of a map.
func sample(t testing.TB) []byte {
	marshal := func(a ...netlink.Attribute) []byte {
		b, err := netlink.MarshalAttributes(a)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	value := func(kind uint16, b ...byte) netlink.Attribute {
		return netlink.Attribute{Type: kind | unix.NLA_F_NESTED, Data: marshal(netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: b})}
	}
	element := func(n byte) netlink.Attribute {
		return netlink.Attribute{Type: unix.NFTA_LIST_ELEM | unix.NLA_F_NESTED, Data: marshal(
			value(unix.NFTA_SET_ELEM_KEY, 10, 0, 0, n), value(unix.NFTA_SET_ELEM_DATA, n, 0, 0, 0))}
	}
	body := append([]byte{2, 0, 0, 0}, marshal(
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte("fingerpost\x00")},
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_ELEMENTS | unix.NLA_F_NESTED, Data: marshal(element(1), element(2))},
	)...)
	header := make([]byte, unix.NLMSG_HDRLEN)
	binary.NativeEndian.PutUint32(header, uint32(len(header)+len(body)))
	binary.NativeEndian.PutUint16(header[4:], unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWSETELEM)
	return append(header, body...)
}

func TestElementsOf(t *testing.T) {
	var got []string
	var interrupted bool
	_, err := messages(sample(t), &interrupted, func(b []byte) error {
		return elementsOf(b, func(key, _, val []byte) { got = append(got, string(key)+string(val)) })
	})
	if err != nil || len(got) != 2 || got[1] != "\x0a\x00\x00\x02\x02\x00\x00\x00" {
		t.Errorf("got %q, %v", got, err)
	}
}

func FuzzMessages(f *testing.F) {
	good := sample(f)
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add(append(append([]byte(nil), good...), good...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var interrupted bool
		_, _ = messages(b, &interrupted, func(b []byte) error {
			_, _, err := ruleLabel(b)
			_, _ = decodeFlow(b)
			_ = elementsOf(b, func(_, _, _ []byte) {})
			return err
		})
	})
}
