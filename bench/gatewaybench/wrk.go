//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// result is what one run of a load says.
type result struct {
	requests int64
	took     time.Duration
	p50, p99 time.Duration
	failed   int64 // answers that are not 2xx, and broken connections
	bytes    int64
}

var (
	wrkTotal   = regexp.MustCompile(`(\d+) requests in ([\d.]+)(us|ms|s|m|h)\b`)
	wrkPercent = regexp.MustCompile(`(?m)^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)\s*$`)
	wrkErrors  = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
	wrkStatus  = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
)

// wrk runs the load generator of that name with one thread.
func wrk(ctx context.Context, span time.Duration, connections int, args ...string) (result, error) {
	seconds := max(1, int(span.Round(time.Second)/time.Second)) // it knows no parts
	args = append([]string{"-c", loadCore, "wrk", "-t1", "-c" + strconv.Itoa(connections), fmt.Sprintf("-d%ds", seconds), "--latency", "--timeout", "30s"}, args...)
	out, err := exec.CommandContext(ctx, "taskset", args...).CombinedOutput()
	if err != nil {
		return result{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	return parseWrk(out)
}

func parseWrk(out []byte) (r result, err error) {
	m := wrkTotal.FindSubmatch(out)
	if m == nil {
		return r, fmt.Errorf("wrk said: %s", out)
	}
	if r.requests, err = strconv.ParseInt(string(m[1]), 10, 64); err != nil {
		return r, err
	}
	if r.took, err = time.ParseDuration(string(m[2]) + string(m[3])); err != nil {
		return r, err
	}
	for _, m := range wrkPercent.FindAllSubmatch(out, -1) {
		d, err := time.ParseDuration(string(m[2]) + string(m[3]))
		if err != nil {
			return r, err
		}
		if string(m[1]) == "50" {
			r.p50 = d
		} else {
			r.p99 = d
		}
	}
	for _, re := range []*regexp.Regexp{wrkErrors, wrkStatus} {
		if m := re.FindSubmatch(out); m != nil {
			for _, x := range m[1:] {
				n, _ := strconv.ParseInt(string(x), 10, 64)
				r.failed += n
			}
		}
	}
	return r, nil
}

var (
	h2loadTotal = regexp.MustCompile(`requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed`)
	h2loadTime  = regexp.MustCompile(`finished in ([\d.]+)(us|ms|s|m)\b`)
)

// h2load runs the load generator of that name with one thread: connections
// with ten streams each. latency makes it log every request, which costs, so
// that run's rate means nothing.
func h2load(ctx context.Context, dir string, span time.Duration, connections int, url string, latency bool) (result, error) {
	args := []string{"-c", loadCore, "h2load", "-t1", "-c" + strconv.Itoa(connections), "-m10", fmt.Sprintf("-D%dms", span.Milliseconds())}
	log := filepath.Join(dir, "h2load.log")
	if latency {
		defer os.Remove(log)
		args = append(args, "--log-file="+log)
	}
	out, err := exec.CommandContext(ctx, "taskset", append(args, url)...).CombinedOutput()
	if err != nil {
		return result{}, fmt.Errorf("h2load: %w: %s", err, out)
	}
	var r result
	m, took := h2loadTotal.FindSubmatch(out), h2loadTime.FindSubmatch(out)
	if m == nil || took == nil {
		return r, fmt.Errorf("h2load said: %s", out)
	}
	// Requests under way at the end are not failures.
	r.requests, _ = strconv.ParseInt(string(m[4]), 10, 64)
	r.failed, _ = strconv.ParseInt(string(m[5]), 10, 64)
	if r.took, err = time.ParseDuration(string(took[1]) + string(took[2])); err != nil {
		return r, err
	}
	if bytes.Contains(out, []byte("No protocol negotiated")) || r.requests == 0 {
		return r, fmt.Errorf("h2load got no answers: %s", out)
	}
	if latency {
		r.p50, r.p99, err = h2loadLatency(log)
	}
	return r, err
}

// h2loadLatency reads the third column, microseconds.
func h2loadLatency(path string) (p50, p99 time.Duration, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	var all []time.Duration
	for s := bufio.NewScanner(f); s.Scan(); {
		if col := strings.Split(s.Text(), "\t"); len(col) == 3 {
			us, err := strconv.ParseInt(col[2], 10, 64)
			if err != nil {
				return 0, 0, err
			}
			all = append(all, time.Duration(us)*time.Microsecond)
		}
	}
	if len(all) == 0 {
		return 0, 0, fmt.Errorf("%s is empty", path)
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100], nil
}
