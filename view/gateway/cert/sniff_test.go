package cert

import (
	"bytes"
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"testing"
)

// hello records what a real client sends first.
func hello(t testing.TB, c *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	c.InsecureSkipVerify = true
	done := make(chan struct{})
	go func() {
		defer close(done)
		tls.Client(client, c).Handshake()
	}()
	b := make([]byte, 1<<16)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	<-done
	client.Close()
	return b[:n]
}

// fragment cuts a message into records of n bytes.
func fragment(b []byte, n int) []byte {
	var out []byte
	for part := range slices.Chunk(b[5:], n) {
		out = append(out, 22, 3, 1, byte(len(part)>>8), byte(len(part)))
		out = append(out, part...)
	}
	return out
}

func TestSniff(t *testing.T) {
	for _, c := range []struct {
		conf *tls.Config
		name string
		alpn []string
	}{
		{&tls.Config{ServerName: "Shop.Example.com", NextProtos: []string{"h2", "http/1.1"}}, "shop.example.com", []string{"h2", "http/1.1"}},
		{&tls.Config{ServerName: "a.b", MaxVersion: tls.VersionTLS12}, "a.b", nil},
		{&tls.Config{}, "", nil},
	} {
		b := hello(t, c.conf)
		for _, stream := range [][]byte{b, fragment(b, 1), fragment(b, 3), fragment(b, 100), append(slices.Clone(b), "what follows"...)} {
			name, alpn, more, err := Sniff(stream)
			if name != c.name || !slices.Equal(alpn, c.alpn) || more || err != nil {
				t.Errorf("%q %q %v %v, want %q %q", name, alpn, more, err, c.name, c.alpn)
			}
		}
		for n := range b {
			if _, _, more, err := Sniff(b[:n]); !more || err != nil {
				t.Fatalf("after %d of %d bytes: %v %v", n, len(b), more, err)
			}
		}
	}
	good := hello(t, &tls.Config{ServerName: "name.example.com"})
	for what, b := range map[string][]byte{
		"HTTP":          []byte("GET / HTTP/1.1\r\n"),
		"first byte":    []byte("G"),
		"an alert":      {21, 3, 1, 0, 2, 1, 0},
		"empty record":  {22, 3, 1, 0, 0},
		"large record":  {22, 3, 1, 0x40, 1},
		"server hello":  {22, 3, 1, 0, 4, 2, 0, 0, 0},
		"empty":         {22, 3, 1, 0, 4, 1, 0, 0, 0},
		"endless":       fragment(append(make([]byte, 5), append([]byte{1, 0, 0xff, 0xff}, make([]byte, MaxHello)...)...)[:MaxHello+3], 1),
		"too long":      {22, 3, 1, 0, 4, 1, 0xff, 0, 0},
		"a space in it": bytes.Replace(good, []byte("name."), []byte("na e."), 1),
		"a NUL in it":   bytes.Replace(good, []byte("name."), []byte("na\x00e."), 1),
	} {
		_, _, more, err := Sniff(b)
		if err == nil || more {
			t.Errorf("%s: %v %v", what, more, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "cert: sniff: ") {
			t.Error(err)
		}
	}
}

func FuzzSniff(f *testing.F) {
	b := hello(f, &tls.Config{ServerName: "shop.example.com", NextProtos: []string{"h2"}})
	f.Add(b)
	f.Add(fragment(b, 7))
	f.Add([]byte{22, 3, 1, 0, 4, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		before := slices.Clone(b)
		name, alpn, more, err := Sniff(b)
		if !bytes.Equal(b, before) {
			t.Fatal("the input was changed")
		}
		if more && (err != nil || name != "" || len(b) >= 2*MaxHello) {
			t.Fatalf("%q %q %v with %d bytes", name, alpn, err, len(b))
		}
		if !more && err == nil {
			// More bytes behind it change nothing.
			n2, a2, m2, e2 := Sniff(append(before, 1, 2, 3))
			if n2 != name || !slices.Equal(a2, alpn) || m2 || e2 != nil {
				t.Fatal("what follows changes the answer")
			}
		}
	})
}
