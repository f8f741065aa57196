package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway"
)

// TestBulk: a gigabyte each way through buffers of constant size; 256 MiB where a
// gigabyte takes too long here. It runs alone, so that the memory of the process
// is that of the gateway (and the endpoint).
func TestBulk(t *testing.T) {
	p := usual()
	p.BodyLimit = -1
	r := web(t, gateway.Config{}, echo("bulk"))
	r.site(host, "web", p)
	for _, c := range r.curls(t) {
		t.Run(c.name, func(t *testing.T) {
			c := *c
			c.t = t
			size := int64(256 << 20)
			if c.name == "http1.1" {
				size = 1 << 30
			}
			out := []string{"-o", "/dev/null", "-w", "%{size_download}"}
			flat(t, "down", size, func() { c.want(fmt.Sprint(size), fmt.Sprintf("/bytes/%d", size), out...) })
			flat(t, "down, no length", size/4, func() { c.want(fmt.Sprint(size/4), fmt.Sprintf("/bytes/%d?chunked", size/4), out...) })

			// A file of holes costs no disk.
			file := filepath.Join(t.TempDir(), "holes")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(file, size); err != nil {
				t.Fatal(err)
			}
			flat(t, "up", size, func() { c.want(fmt.Sprintf("PUT /x %d", size), "/x", "-T", file, "-H", "Expect:") })
			options := []string{"-T", file}
			if !c.two() {
				options = append(options, "-H", "Transfer-Encoding: chunked")
			}
			flat(t, "up, no length", size/4, func() {
				size := size / 4
				if err := os.Truncate(file, size); err != nil {
					t.Fatal(err)
				}
				c.want(fmt.Sprintf("PUT /x %d", size), "/x", options...)
			})
		})
	}
}

// TestBulkUnread: clients that ask for much and read nothing cost no memory.
func TestBulkUnread(t *testing.T) {
	r := web(t, gateway.Config{}, echo("bulk"))
	flat(t, "unread", 0, func() {
		for range 50 {
			c, err := r.raw("ws")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			fmt.Fprintf(c, "GET /bytes/1000000000 HTTP/1.1\r\nHost: %s\r\n\r\n", host)
			readHead(t, c)
		}
	})
}

// flat fails if the process grew by more than 32 MiB while f ran.
func flat(t *testing.T, what string, size int64, f func()) {
	t.Helper()
	runtime.GC()
	before, exact := peak(true)
	began := time.Now()
	f()
	after, _ := peak(false)
	took := time.Since(began)
	t.Logf("%s: %d MiB in %s, memory %d + %d KiB", what, size>>20, took.Round(time.Millisecond), before>>10, (after-before)>>10)
	if exact && after-before > 32<<20 {
		t.Errorf("%s: the process grew by %d KiB", what, (after-before)>>10)
	}
	if n := heap(); n > 64<<20 {
		t.Errorf("%s: the heap has %d KiB", what, n>>10)
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// peak is the most memory that the process had resident since it was reset; exact
// says that the system tells.
func peak(reset bool) (bytes int64, exact bool) {
	if reset && os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) != nil {
		return 0, false
	}
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, false
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			return n << 10, err == nil
		}
	}
	return 0, false
}
