package viptest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// times takes a last word ×N off.
func times(words []string, n int) ([]string, int, error) {
	last := len(words) - 1
	text, ok := strings.CutPrefix(words[last], "×")
	if !ok {
		return words, n, nil
	}
	n, err := strconv.Atoi(text)
	return words[:last], n, err
}

// more does the commands for what is random: who answers is not known before.
func (r *run) more(words []string) ([]string, error) {
	switch words[0] {
	case "wait":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			return nil, err
		}
		<-time.After(d)
		return nil, nil
	case "spread":
		words, n, err := times(words, 20)
		if err != nil {
			return nil, err
		}
		var all []string
		for _, what := range words[2:] {
			from, network, to, err := r.target(words[1], what)
			if err != nil {
				return nil, err
			}
			all = append(all, r.w.connect(from, network, to, n)...)
		}
		slices.Sort(all)
		return []string{strconv.Itoa(len(slices.Compact(all)))}, nil
	case "note":
		who, err := r.who(words[2], words[3])
		r.notes[words[1]] = who
		return nil, err
	case "noted":
		who, err := r.who(words[2], words[3])
		switch {
		case err != nil:
			return nil, err
		case who == r.notes[words[1]]:
			return []string{"the same"}, nil
		}
		return []string{"another"}, nil
	case "await":
		from, network, to, err := r.target(words[1], words[2])
		if err != nil {
			return nil, err
		}
		var got []string
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
			if got = r.w.connect(from, network, to, 10); strings.Join(got, ", ") == strings.Join(words[3:], " ") {
				return nil, nil
			}
			<-time.After(50 * time.Millisecond)
		}
		return got, nil
	}
	return nil, fmt.Errorf("no command is called %q", words[0])
}

// who gives the name of the one that answers a new connection.
func (r *run) who(name, what string) (string, error) {
	from, network, to, err := r.target(name, what)
	if err != nil {
		return "", err
	}
	who, _, ok := strings.Cut(r.w.connect(from, network, to, 1)[0], " sees ")
	if !ok {
		return "", fmt.Errorf("nobody answers at %s: %s", what, who)
	}
	return who, nil
}

func (r *run) talk(id string) ([]string, error) {
	h := r.conns[id]
	if h == nil {
		return nil, fmt.Errorf("no connection is called %q", id)
	}
	who, saw, err := ask(h.c)
	if err != nil {
		return []string{failure(err)}, nil
	}
	return []string{who + " sees " + r.w.name(saw)}, nil
}

// check asks the health check node port from outside.
func (r *run) check(port string) ([]string, error) {
	from := r.w.hosts["o"]
	c, err := from.dial("tcp", net.JoinHostPort("192.168.77.1", port))
	if err != nil {
		return []string{failure(err)}, nil
	}
	defer c.Close()
	t := &http.Transport{DisableKeepAlives: true, Dial: func(string, string) (net.Conn, error) { return c, nil }}
	resp, err := (&http.Client{Transport: t, Timeout: patience}).Get("http://check/")
	if err != nil {
		return []string{failure(err)}, nil
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return []string{strconv.Itoa(resp.StatusCode)}, nil
}
