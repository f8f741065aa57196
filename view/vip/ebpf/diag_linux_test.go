package ebpf

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

func message(kind uint16, body ...byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return append(append(b, make([]byte, 10)...), body...)
}

func FuzzWalk(f *testing.F) {
	f.Add(message(unix.NLMSG_DONE))
	f.Add(append(message(unix.SOCK_DIAG_BY_FAMILY, make([]byte, 72)...), message(unix.NLMSG_DONE)...))
	f.Add(message(unix.NLMSG_ERROR, 0xfe, 0xff, 0xff, 0xff))
	f.Add(message(unix.NLMSG_ERROR, 1))
	f.Add(message(unix.SOCK_DIAG_BY_FAMILY, 1, 2, 3)[:17])
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		done, err := walk(b, func(body []byte) { n += len(body) })
		if n > len(b) || err == nil && !done && len(b) >= 64<<10 {
			t.Errorf("%d bytes of %d, %v", n, len(b), err)
		}
	})
}

func TestWalk(t *testing.T) {
	if done, err := walk(message(unix.NLMSG_ERROR, 0, 0, 0, 0), nil); !done || err != nil {
		t.Errorf("an acknowledgement: %v, %v", done, err)
	}
	no := message(unix.NLMSG_ERROR, binary.NativeEndian.AppendUint32(nil, ^uint32(unix.ENOENT)+1)...)
	if done, err := walk(no, nil); !done || err != unix.ENOENT {
		t.Errorf("a refusal: %v, %v", done, err)
	}
}
