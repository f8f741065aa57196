package gateway

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// program finds one that is not part of this project.
func program(t testing.TB, names ...string) string {
	t.Helper()
	for _, n := range names {
		if p, err := exec.LookPath(n); err == nil {
			return p
		}
	}
	t.Skipf("%s is not installed here: what it shows cannot be shown", strings.Join(names, " or "))
	return ""
}

// run runs a program and gives what it wrote; a status other than 0 is an error.
func run(t testing.TB, in string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + t.TempDir()}
	c.Stdin = strings.NewReader(in)
	c.WaitDelay = time.Second
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, short(strings.Join(args, " ")), err, short(errs.String()))
	}
	return string(out), err
}

func (r *rig) port(secure bool) string {
	addr := r.plain
	if secure {
		addr = r.secure
	}
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// curl is a way to ask with curl.
type curl struct {
	t      testing.TB
	r      *rig
	name   string
	path   string // of the program
	args   []string
	secure bool
}

// curls are all ways: HTTP/1.1 and HTTP/2, with and without TLS.
func (r *rig) curls(t testing.TB) []*curl {
	path, ca := program(t, "curl"), r.ca.file(t)
	var out []*curl
	for _, c := range []struct {
		name, option string
		secure       bool
	}{
		{"http1.1", "--http1.1", false}, {"h2c", "--http2-prior-knowledge", false}, {"https1.1", "--http1.1", true}, {"h2", "--http2", true},
	} {
		out = append(out, &curl{t: t, r: r, name: c.name, path: path, secure: c.secure, args: []string{
			"-sS", c.option, "--cacert", ca, "--max-time", "200",
			"--connect-to", host + ":80:127.0.0.1:" + r.port(false), "--connect-to", host + ":443:127.0.0.1:" + r.port(true),
		}})
	}
	return out
}

// two says that it speaks HTTP/2.
func (c *curl) two() bool { return strings.HasPrefix(c.name, "h2") }

func (c *curl) url(path string) string { return c.r.url(c.secure, path) }

// ask runs curl for a path with further options.
func (c *curl) ask(path string, options ...string) string {
	c.t.Helper()
	out, err := run(c.t, "", c.path, append(append(c.args[:len(c.args):len(c.args)], options...), c.url(path))...)
	if err != nil {
		c.t.Errorf("%s: %v", c.name, err)
	}
	return out
}

// want compares the output.
func (c *curl) want(want, path string, options ...string) {
	c.t.Helper()
	if got := c.ask(path, options...); got != want {
		c.t.Errorf("%s: curl %s %s: want\n%q, got\n%q", c.name, short(strings.Join(options, " ")), short(path), short(want), short(got))
	}
}

// contain checks that the output has these parts, without regard to case.
func (c *curl) contain(path string, options []string, parts ...string) {
	c.t.Helper()
	got := c.ask(path, options...)
	for _, p := range parts {
		if !strings.Contains(strings.ToLower(got), strings.ToLower(p)) {
			c.t.Errorf("%s: curl %s %s: want %q in\n%s", c.name, short(strings.Join(options, " ")), short(path), p, short(got))
		}
	}
}

func short(s string) string {
	if len(s) > 800 {
		return s[:800] + "…"
	}
	return s
}
