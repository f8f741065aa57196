//go:build linux

package main

import (
	"testing"
	"time"
)

func TestParseWrk(t *testing.T) {
	for name, c := range map[string]struct {
		out  string
		want result
	}{
		"good": {`Running 2s test @ http://127.0.0.1:11000/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   806.10us  231.14us   7.03ms   96.10%
    Req/Sec    78.40k     4.16k   82.53k    85.00%
  Latency Distribution
     50%  775.00us
     75%  821.00us
     90%    0.92ms
     99%    1.30ms
  155982 requests in 2.00s, 166.77MB read
Requests/sec:  77975.21
Transfer/sec:     83.37MB
`, result{requests: 155982, took: 2 * time.Second, p50: 775 * time.Microsecond, p99: 1300 * time.Microsecond}},
		"bad": {`  Latency Distribution
     50%    1.00s
     99%    2.00s 
  10 requests in 1.50s, 1.00KB read
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 5
`, result{requests: 10, took: 1500 * time.Millisecond, p50: time.Second, p99: 2 * time.Second, failed: 15}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseWrk([]byte(c.out))
			if err != nil || got != c.want {
				t.Errorf("%+v, %v, want %+v", got, err, c.want)
			}
		})
	}
	if _, err := parseWrk([]byte("unable to connect to 127.0.0.1:1 Connection refused\n")); err == nil {
		t.Error("no error for a run without result")
	}
}
