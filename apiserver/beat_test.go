package apiserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapiserver "k8s.io/apiserver/pkg/server"
)

// beatServer is a renewer behind net/http and TLS, that knows the instance
// default/web-1, the tokens good and mute, and lets good beat in default.
type beatServer struct {
	*renewer
	*httptest.Server
	live  *beats
	asked atomic.Int64 // the authenticator
	clock atomic.Int64 // seconds to add to now
	stop  func()
}

func startBeats(t testing.TB) *beatServer {
	s := &beatServer{live: &beats{}}
	c := &genericapiserver.Config{}
	c.Authentication.Authenticator = authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		s.asked.Add(1)
		name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || name == "bad" {
			return nil, false, errors.New("no")
		}
		return &authenticator.Response{User: &user.DefaultInfo{Name: name}}, true, nil
	})
	c.Authorization.Authorizer = authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		if a.GetNamespace() == "default" && (a.GetUser().GetName() == "good" || a.GetUser().GetName() == "one" && a.GetName() == "web-1") {
			return authorizer.DecisionAllow, "", nil
		}
		return authorizer.DecisionNoOpinion, "", nil
	})
	s.renewer = newRenewer(s.live, c)
	s.now = func() time.Time { return time.Now().Add(time.Duration(s.clock.Load()) * time.Second) }
	h := s.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %q tls=%v", r.Method, r.URL, body, r.TLS != nil)
	}))
	s.Server = httptest.NewTLSServer(h)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.renewer.beats.run(ctx, h)
	}()
	s.stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(func() {
		s.stop()
		s.Close()
	})
	return s
}

func (s *beatServer) dial(t testing.TB) *tls.Conn {
	conn, err := tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

const beatPath = "/apis/fingerpost.dev/v1alpha1/namespaces/default/instances/web-1/renew"

func beatText(method, path, token, more, body string) string {
	auth := ""
	if token != "" {
		auth = "Authorization: Bearer " + token + "\r\n"
	}
	return method + " " + path + " HTTP/1.1\r\nHost: x\r\n" + auth + more + "\r\n" + body
}

// conversation is what a client sends on one connection, and how many answers
// it waits for after each piece.
var conversation = []struct {
	text    string
	answers int
}{
	{beatText("PUT", beatPath, "good", "", ""), 1},
	{beatText("PUT", beatPath, "good", "", ""), 1},
	{beatText("POST", beatPath+"?door=http&id=1", "good", "", ""), 1},
	{beatText("PUT", beatPath, "good", "Content-Length: 0\r\n", ""), 1},
	{beatText("PUT", beatPath, "good", "Content-Type: application/json\r\nContent-Length: 24\r\n", `{"door":"http","id":"1"}`), 1},
	{beatText("PUT", beatPath, "good", "Content-Length: 1\r\n", `{`), 1},
	{beatText("PUT", strings.Replace(beatPath, "web-1", "web-2", 1), "good", "", ""), 1},
	{beatText("PUT", strings.Replace(beatPath, "default", "other", 1), "good", "", ""), 1},
	{beatText("PUT", beatPath, "mute", "", ""), 1},
	{beatText("PUT", beatPath, "bad", "", ""), 1},
	{beatText("PUT", beatPath, "", "", ""), 1},
	{beatText("PUT", beatPath, "one", "", ""), 1},
	{beatText("PUT", strings.Replace(beatPath, "web-1", "web-2", 1), "one", "", ""), 1},
	// two at once, one in pieces
	{beatText("PUT", beatPath, "good", "", "") + beatText("PUT", beatPath, "good", "Accept: */*\r\n", ""), 2},
	{beatText("PUT", beatPath, "good", "Content-Len", "")[:60], 0},
	{beatText("PUT", beatPath, "good", "", "")[60:], 1},
	// something else, and back
	{"GET /other HTTP/1.1\r\nHost: x\r\n\r\n" + beatText("PUT", beatPath, "good", "", ""), 2},
	{beatText("PUT", beatPath, "good", "", ""), 1},
	{beatText("PUT", beatPath, "good", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), 1},
	{beatText("PUT", beatPath, "good", "", ""), 1},
	{"POST /other HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 1},
	{beatText("PUT", beatPath, "good", "", ""), 1},
	{"GET /other HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 1},
}

// TestBeatsAreAnsweredAsByNetHTTP holds connections that were taken against
// those that net/http serves.
func TestBeatsAreAnsweredAsByNetHTTP(t *testing.T) {
	fast, slow := startBeats(t), startBeats(t)
	slow.stop() // it takes no more connections
	answers := func(s *beatServer) []string {
		conn := s.dial(t)
		r := bufio.NewReader(conn)
		var all []string
		for i, c := range conversation {
			if _, err := conn.Write([]byte(c.text)); err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			for range c.answers {
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("answer to %d, %q: %v", i, c.text, err)
				}
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				date := resp.Header.Get("Date")
				if _, err := http.ParseTime(date); err != nil {
					t.Errorf("answer to %d: date %q", i, date)
				}
				resp.Header.Del("Date")
				all = append(all, fmt.Sprintf("%d: %s %v close=%v %d %s", i, resp.Status, resp.Header, resp.Close, resp.ContentLength, body))
			}
		}
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("after the last answer: %v, want the end", err)
		}
		return all
	}
	got, want := answers(fast), answers(slow)
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Errorf("got  %s\nwant %s", got[i], want[i])
		}
	}
	if fast.live.n != slow.live.n {
		t.Errorf("%d heartbeats counted, want %d", fast.live.n, slow.live.n)
	}
}

// TestBeatDecisionsEnd: a right that ends is noticed on a connection under way.
func TestBeatDecisionsEnd(t *testing.T) {
	s := startBeats(t)
	conn := s.dial(t)
	r := bufio.NewReader(conn)
	beat := func() int {
		if _, err := conn.Write([]byte(beatText("PUT", beatPath, "good", "", ""))); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	for range 3 {
		if got := beat(); got != 200 {
			t.Fatal(got)
		}
	}
	if n := s.asked.Load(); n != 1 {
		t.Errorf("%d authentications, want 1", n)
	}
	s.clock.Add(int64(decisionTTL / time.Second))
	if got := beat(); got != 200 || s.asked.Load() != 2 {
		t.Errorf("status %d after %d authentications, want 200 after 2", got, s.asked.Load())
	}
	s.authz = authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		return authorizer.DecisionDeny, "", nil
	})
	s.clock.Add(int64(decisionTTL / time.Second))
	for range 2 {
		if got := beat(); got != 403 {
			t.Errorf("status %d without the right, want 403", got)
		}
	}
}

// TestRenewAll: one call with many heartbeats is answered for each of them.
func TestRenewAll(t *testing.T) {
	s := startBeats(t)
	const path = "/apis/fingerpost.dev/v1alpha1/namespaces/default/renewals"
	for _, c := range []struct {
		name, method, path, token, body string
		want                            int
		contains                        string
	}{
		{"two", "PUT", path, "good", `{"items":[{"name":"web-1","door":"http","id":"1"},{"name":"web-2","ttl":"1h","code":7}]}`, 200,
			`{"kind":"RenewalList","apiVersion":"fingerpost.dev/v1alpha1","items":[{"name":"web-1","door":"http","id":"1","ttl":"15s"},{"name":"web-2","code":404,"reason":"NotFound","message":"instances.fingerpost.dev \"web-2\" not found"}]}`},
		{"none", "POST", path, "good", `{}`, 200, `"items":[]`},
		{"other namespace", "PUT", strings.Replace(path, "default", "other", 1), "good", `{}`, 403, "instances/renew"},
		{"one name only", "PUT", path, "one", `{"items":[{"name":"web-1"}]}`, 403, ""},
		{"no token", "PUT", path, "", `{}`, 401, ""},
		{"garbage", "PUT", path, "good", `[`, 400, "RenewalList"},
		{"too many", "PUT", path, "good", `{"items":[` + strings.Repeat(`{},`, maxRenewals) + `{}]}`, 400, "10000"},
		{"too long", "PUT", path, "good", strings.Repeat(" ", maxRenewalsBody+1), 400, "2 MiB"},
		{"get", "GET", path, "good", "", 200, "GET " + path},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if c.token != "" {
				req.Header.Set("Authorization", "Bearer "+c.token)
			}
			resp, err := s.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != c.want || !strings.Contains(string(body), c.contains) {
				t.Errorf("status %d, want %d with %s: %s %v", resp.StatusCode, c.want, c.contains, body, err)
			}
		})
	}
	if s.live.n != 1 {
		t.Errorf("%d heartbeats counted, want 1", s.live.n)
	}
}

// TestBeatsStop: connections end with the server, also idle ones and ones whose
// client does not read.
func TestBeatsStop(t *testing.T) {
	s := startBeats(t)
	conn := s.dial(t)
	r := bufio.NewReader(conn)
	if _, err := conn.Write([]byte(beatText("PUT", beatPath, "good", "", ""))); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	s.stop()
	if _, err := r.ReadByte(); err == nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("after the stop: %v, want the end of the connection", err)
	}
}
