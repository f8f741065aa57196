//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// doorway is a gateway as its clients see it.
type doorway struct {
	http, https string // addresses
	home        string // of the clients
}

func (s *system) doorway() *doorway {
	return &doorway{s.http, strings.TrimSuffix(s.http, "8080") + "8443", s.home}
}

// answer is what curl got: the fields with canonical names, then the body.
type answer struct {
	status  int
	version string
	header  http.Header
	body    string
}

func (a *answer) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d\n", a.version, a.status)
	_ = a.header.Write(&b)
	return strings.ReplaceAll(b.String(), "\r", "") + "\n" + a.body
}

// curl asks the gateway, whatever host the URL names.
func (d *doorway) curl(t testing.TB, args ...string) (*answer, error) {
	t.Helper()
	cmd := exec.Command("curl", append([]string{"-sS", "-i", "-k", "--max-time", "60", "--noproxy", "*",
		"--connect-to", ":80:" + d.http, "--connect-to", ":443:" + d.https}, args...)...)
	cmd.Env, cmd.Dir = environ(t, d.home), d.home
	var out, errw bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errw
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("curl %s: %w: %s%s", strings.Join(args, " "), err, out.String(), errw.String())
	}
	return parseAnswer(out.Bytes())
}

// parseAnswer reads what curl -i prints.
func parseAnswer(text []byte) (*answer, error) {
	r := bufio.NewReader(bytes.NewReader(text))
	p := textproto.NewReader(r)
	for {
		line, err := p.ReadLine()
		if err != nil {
			return nil, fmt.Errorf("no answer: %q", text)
		}
		version, rest, _ := strings.Cut(line, " ")
		code, _, _ := strings.Cut(rest, " ")
		status, err := strconv.Atoi(code)
		if err != nil {
			return nil, fmt.Errorf("no status: %q", text)
		}
		h, err := p.ReadMIMEHeader()
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if status/100 == 1 {
			continue
		}
		body, err := io.ReadAll(r)
		return &answer{status, version, http.Header(h), string(body)}, err
	}
}

// ask is a request with curl, and what must come.
type ask struct {
	what   string
	args   []string
	status int
	has    []string // in fields and body
	not    []string
}

func (q *ask) check(a *answer) error {
	text := a.String()
	var bad []string
	if q.status != 0 && a.status != q.status {
		bad = append(bad, fmt.Sprintf("status %d, want %d", a.status, q.status))
	}
	for _, h := range q.has {
		if !strings.Contains(text, h) {
			bad = append(bad, fmt.Sprintf("%q is missing", h))
		}
	}
	for _, n := range q.not {
		if strings.Contains(text, n) {
			bad = append(bad, fmt.Sprintf("%q is there", n))
		}
	}
	return unless(bad == nil, "%s: curl %s: %s\n%s", q.what, strings.Join(q.args, " "), strings.Join(bad, ", "), text)
}

// comes waits until the answer is as it should be.
func (d *doorway) comes(t testing.TB, q ask) *answer {
	t.Helper()
	var a *answer
	if err := poll(func() (err error) {
		if a, err = d.curl(t, q.args...); err != nil {
			return err
		}
		return q.check(a)
	}); err != nil {
		t.Fatal(err)
	}
	return a
}

// is asks once.
func (d *doorway) is(t testing.TB, q ask) *answer {
	t.Helper()
	a, err := d.curl(t, q.args...)
	if err == nil {
		err = q.check(a)
	}
	if err != nil {
		t.Error(err)
	}
	return a
}

// endpoint is a program behind the gateway that says what reached it.
type endpoint struct {
	name, addr string
	port       int
	close      func()
}

// saw is what an endpoint says: who it is, and the request.
type saw struct {
	Name, Method, URI, Proto, Host string
	Header                         http.Header
	Body                           int64
	Names                          []string // of the client's certificate, with TLS
	TLS                            bool
}

// listenEndpoint starts one at a place of the site; handler nil: it says what it saw.
func listenEndpoint(t testing.TB, s *site, net_, host, port int, name string, cfg *tls.Config, handler http.Handler) endpoint {
	t.Helper()
	l, err := net.Listen("tcp", s.at(net_, host, port))
	if err != nil {
		t.Fatal(err)
	}
	if handler == nil {
		handler = tellSaw(name)
	}
	srv := &http.Server{Handler: handler, Protocols: new(http.Protocols), TLSConfig: cfg}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	go func() {
		if cfg != nil {
			_ = srv.ServeTLS(l, "", "")
			return
		}
		_ = srv.Serve(l)
	}()
	stop := func() { _ = srv.Close() }
	t.Cleanup(stop)
	return endpoint{name, s.ip(net_, host), port, stop}
}

func tellSaw(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		v := saw{Name: name, Method: r.Method, URI: r.RequestURI, Proto: r.Proto, Host: r.Host, Header: r.Header, Body: n, TLS: r.TLS != nil}
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			v.Names = []string{r.TLS.PeerCertificates[0].Subject.CommonName}
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Endpoint", name)
		code := 200
		if rest, ok := strings.CutPrefix(r.URL.Path, "/status/"); ok { // /status/503 or, of one endpoint only, /status/503/a
			c, only, _ := strings.Cut(rest, "/")
			if n, err := strconv.Atoi(c); err == nil && (only == "" || only == name) {
				code = n
			}
		}
		if r.URL.Path == "/slow" {
			select {
			case <-r.Context().Done():
			case <-time.After(patience):
			}
		}
		w.WriteHeader(code)
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		_ = e.Encode(v)
	})
}

// heard reads what the endpoint said.
func (a *answer) heard(t testing.TB) saw {
	t.Helper()
	var v saw
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("no endpoint answered: %v\n%s", err, a)
	}
	return v
}

// behind is a Service on port 80, called http, with endpoints.
func behind(t testing.TB, service string, eps ...endpoint) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {ports: [{name: http, port: 80}]}\n---\n", service)
	for _, e := range eps {
		fmt.Fprintf(&b, "apiVersion: fingerpost.dev/v1alpha1\nkind: Instance\nmetadata: {name: %s-%s}\nspec: {service: %[1]s, address: %[3]s, nodeName: %[4]s, ports: [{name: http, port: %[5]d}]}\n---\n",
			service, e.name, e.addr, node(t), e.port)
	}
	return b.String()
}

// rule is an Ingress of one host and path.
type rule struct {
	name, host  string
	path        string // "": / of kind Prefix; else of kind ImplementationSpecific
	service     string // "": echo
	tls         string // Secret
	annotations []string
}

func (r rule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: %s\n", r.name)
	if len(r.annotations) > 0 {
		b.WriteString("  annotations:\n")
		for _, a := range r.annotations {
			k, v, _ := strings.Cut(a, ": ")
			fmt.Fprintf(&b, "    nginx.ingress.kubernetes.io/%s: %s\n", k, strconv.Quote(v))
		}
	}
	b.WriteString("spec:\n  ingressClassName: nginx\n")
	if r.tls != "" {
		fmt.Fprintf(&b, "  tls: [{hosts: [%s], secretName: %s}]\n", r.host, r.tls)
	}
	path, kind, service := "/", "Prefix", "echo"
	if r.path != "" {
		path, kind = r.path, "ImplementationSpecific"
	}
	if r.service != "" {
		service = r.service
	}
	fmt.Fprintf(&b, "  rules:\n  - {host: %s, http: {paths: [{path: %q, pathType: %s, backend: {service: {name: %s, port: {name: http}}}}]}}\n---\n", r.host, path, kind, service)
	return b.String()
}

// who asks n times and counts which endpoint answered.
func (d *doorway) who(t testing.TB, n int, args ...string) map[string]int {
	t.Helper()
	count := map[string]int{}
	for range n {
		a, err := d.curl(t, args...)
		if err != nil {
			t.Fatal(err)
		}
		count[a.header.Get("X-Endpoint")]++
	}
	return count
}
