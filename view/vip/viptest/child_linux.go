package viptest

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// Driver is what the suite drives: it runs in the namespace of a node.
type Driver interface {
	catalog.View
	Run(ctx context.Context) error
}

// childEnv makes a test binary the process of a driver: its configuration.
const childEnv = "FINGERPOST_VIPTEST"

// op is one change of the catalog.
type op struct {
	Service   *catalog.Service   `json:",omitempty"`
	Key       catalog.Key        // of what follows
	Endpoints []catalog.Endpoint `json:",omitempty"`
	Delete    bool               `json:",omitempty"`
	Put       bool               `json:",omitempty"` // Endpoints
}

// Main runs the tests, or the driver if this is its process. Call it from
// TestMain.
func Main(m *testing.M, build func(NodeConfig) (Driver, error)) {
	text := os.Getenv(childEnv)
	if text == "" {
		Alone()
		beside()
		os.Exit(m.Run())
	}
	if err := serve(text, build); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// beside lets a few worlds run at once, if their tests say so: they mostly wait
// for the kernel. One who says another number gets that.
func beside() {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if f := flag.Lookup("test.parallel"); f != nil && !said {
		_ = f.Value.Set("4")
	}
}

// serve is the driver's process: a line of changes in, a line of answer out.
func serve(text string, build func(NodeConfig) (Driver, error)) error {
	var cfg NodeConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	d, err := build(cfg)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	c := catalog.New(nil)
	sub := c.Subscribe()
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 64<<20)
	lines := make(chan string)
	go func() {
		for in.Scan() {
			lines <- in.Text()
		}
		stop() // the test is gone
	}()
	for {
		select {
		case err := <-ended:
			return err
		case line := <-lines:
			var ops []op
			if err := json.Unmarshal([]byte(line), &ops); err != nil {
				return err
			}
			c.Update(func(t *catalog.Txn) {
				t.SetFreshness(catalog.Freshness{Synced: true})
				for _, o := range ops {
					switch {
					case o.Delete:
						t.DeleteService(o.Key)
						t.PutEndpoints(o.Key, nil)
					case o.Service != nil:
						t.PutService(o.Service)
					case o.Put:
						t.PutEndpoints(o.Key, o.Endpoints)
					}
				}
			})
			answer := "ok"
			if err := d.Apply(ctx, sub.TryNext()); err != nil {
				answer = strings.ReplaceAll(err.Error(), "\n", " ")
			}
			fmt.Println("viptest:", answer)
		}
	}
}

// child is the process of a driver as the suite sees it.
type child struct {
	cmd  *exec.Cmd
	in   *json.Encoder
	out  *bufio.Scanner
	log  string
	once sync.Once
}

// spawn starts the driver on a host.
func spawn(t testing.TB, h *host, cfg NodeConfig) *child {
	t.Helper()
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.Command(self), log: filepath.Join(cfg.Dir, "driver.log")}
	c.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.cmd.Stderr = log
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.in, c.out = json.NewEncoder(in), bufio.NewScanner(out)
	// The child has the namespace of the thread that forks it.
	if err := h.in(c.cmd.Start); err != nil {
		t.Fatalf("start the driver: %v", err)
	}
	t.Cleanup(func() { c.stop(syscall.SIGTERM) })
	return c
}

// apply sends changes and waits until the driver has made them true.
func (c *child) apply(ops []op) error {
	if err := c.in.Encode(ops); err != nil {
		return c.died(err)
	}
	for c.out.Scan() {
		if answer, ok := strings.CutPrefix(c.out.Text(), "viptest: "); ok {
			if answer != "ok" {
				return fmt.Errorf("the driver says: %s", answer)
			}
			return nil
		}
	}
	return c.died(c.out.Err())
}

func (c *child) died(err error) error {
	text, _ := os.ReadFile(c.log)
	return fmt.Errorf("the driver's process ended (%v): %s", err, text[max(0, len(text)-4000):])
}

// stop ends the process; it is killed when it does not end by itself.
func (c *child) stop(sig syscall.Signal) {
	c.once.Do(func() {
		_ = c.cmd.Process.Signal(sig)
		timer := time.AfterFunc(20*time.Second, func() { _ = c.cmd.Process.Kill() })
		_ = c.cmd.Wait()
		timer.Stop()
	})
}
