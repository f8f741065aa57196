package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/view/gateway"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// TestH2load: the load generator of nghttp2 counts no failure, over HTTP/1.1 and
// HTTP/2, to endpoints of HTTP/1 and of HTTP/2.
func TestH2load(t *testing.T) {
	t.Parallel()
	h2load := program(t, "h2load")
	r := web(t, gateway.Config{}, echo("h2load"))
	r.site("", "web", nil) // h2load says what it wants in Host
	two := usual()
	two.Protocol = route.H2C
	r.site("two.example.com", "two", two)
	r.endpoints("two", serve(t, echo("h2load")))
	for _, c := range []struct {
		name, url, authority string
		options              []string
	}{
		{"http1.1", "http://" + r.plain, host, []string{"--h1", "-c", "20"}},
		{"h2c", "http://" + r.plain, host, []string{"-c", "10", "-m", "20"}},
		{"h2", "https://" + r.secure, host, []string{"-c", "10", "-m", "20"}},
		{"h2 to h2c", "https://" + r.secure, "two.example.com", []string{"-c", "10", "-m", "100"}},
		{"https1.1", "https://" + r.secure, host, []string{"--h1", "-c", "20"}},
	} {
		for _, path := range []string{"/", "/bytes/100000", "/bytes/0", "/trailers", "/status/204"} {
			n := "2000"
			if path == "/bytes/100000" {
				n = "500"
			}
			if !strings.HasSuffix(c.name, "1.1") {
				c.options = append(c.options, "-H", ":authority: "+c.authority)
			}
			out, err := run(t, "", h2load, append(c.options, "-n", n, c.url+path)...)
			if err != nil {
				t.Error(err)
			}
			want := fmt.Sprintf("requests: %s total, %s started, %s done, %s succeeded, 0 failed, 0 errored, 0 timeout", n, n, n, n)
			if !strings.Contains(out, want) {
				t.Errorf("%s %s: %s", c.name, path, out)
			}
		}
	}
}

// TestNghttp: nghttp sends what others do not: padding, priorities,
// continuations, trailers.
func TestNghttp(t *testing.T) {
	t.Parallel()
	nghttp := program(t, "nghttp")
	r := web(t, gateway.Config{}, echo("nghttp"))
	two := usual()
	two.Protocol = route.H2C
	for _, protocol := range []string{"one", "two"} {
		if protocol == "two" {
			r.site(host, "web", two)
		}
		for _, c := range []struct {
			options []string
			path    string
			want    []string
		}{
			{[]string{"-v"}, "/", []string{":status: 200", "served-by: nghttp", "GET / 0"}},
			{[]string{"-v", "--padding=100"}, "/", []string{"GET / 0"}},
			{[]string{"-v", "--no-dep", "--weight=8"}, "/", []string{"GET / 0"}},
			{[]string{"-v", "--continuation"}, "/", []string{"GET / 0"}},
			{[]string{"-v", "--window-bits=8", "--connection-window-bits=10"}, "/bytes/10000", []string{patternText}},
			{[]string{"-v", "--trailer=sent: yes", "-d", "-"}, "/trailers", []string{"payloadbody", "checksum: abc"}},
			{[]string{"-v", "--expect-continue", "-d", "-"}, "/", []string{":status: 100", "POST / 7"}},
			{[]string{"-nv"}, "/hints", []string{":status: 103", ":status: 200"}},
			{[]string{"-v", "-H", ":method: HEAD"}, "/bytes/100", []string{"content-length: 100", "END_STREAM"}},
			{[]string{"-nv", "--header-table-size=0"}, "/", []string{":status: 200"}},
			{[]string{"-nvs", "-m", "50"}, "/", []string{":status: 200"}},
		} {
			for _, secure := range []bool{false, true} {
				scheme, addr := "http://", r.plain
				if secure {
					scheme, addr = "https://", r.secure
				}
				out, err := run(t, "payload", nghttp, append(c.options, "-H", ":authority: "+host, scheme+addr+c.path)...)
				if err != nil {
					t.Error(err)
				}
				for _, w := range c.want {
					if !strings.Contains(out, w) {
						t.Errorf("to HTTP/%s: %s%s %v: want %q in\n%s", protocol, scheme, c.path, c.options, w, out)
					}
				}
			}
		}
	}
}

// nodeScript opens one session, has many streams on it, and tells what it got.
const nodeScript = `
const http2 = require('http2'), fs = require('fs');
const [url, ca, authority] = process.argv.slice(1);
const s = http2.connect(url, {ca: ca ? fs.readFileSync(ca) : undefined, servername: authority});
const out = {};
s.on('error', e => { console.log(JSON.stringify({error: String(e)})); process.exit(1); });
function ask(name, headers, body, trailers) {
  return new Promise((done, fail) => {
    const r = s.request(Object.assign({':authority': authority}, headers), {endStream: body === undefined, waitForTrailers: !!trailers});
    const got = {hints: 0, body: '', bytes: 0};
    r.on('headers', h => got.hints++);
    r.on('response', h => { got.status = h[':status']; got.served = h['served-by']; got.length = h['content-length']; });
    r.on('trailers', t => { got.trailer = t['checksum']; got.late = t['late']; });
    r.on('data', d => { got.bytes += d.length; if (got.bytes < 1000) got.body += d; });
    r.on('wantTrailers', () => r.sendTrailers(trailers));
    r.on('error', e => fail(name + ': ' + e));
    r.on('end', () => { out[name] = got; });
    r.on('close', () => done());
    if (body !== undefined) { r.write(body.slice(0, body.length >> 1)); r.end(body.slice(body.length >> 1)); }
  });
}
(async () => {
  const all = [];
  for (let i = 0; i < 300; i++) all.push(ask('many' + i, {':path': '/many/' + i}));
  all.push(ask('post', {':path': '/', ':method': 'POST'}, 'x'.repeat(300000)));
  all.push(ask('trailers', {':path': '/trailers', ':method': 'POST'}, 'up', {sent: 'node'}));
  all.push(ask('large', {':path': '/bytes/3000000'}));
  all.push(ask('hints', {':path': '/hints'}));
  all.push(ask('head', {':path': '/bytes/77', ':method': 'HEAD'}));
  all.push(ask('fields', {':path': '/fields', 'large': 'y'.repeat(20000), cookie: ['a=b', 'c=d']}));
  await Promise.all(all);
  await new Promise((done, fail) => s.ping((e) => e ? fail(e) : done()));
  // Given up half way: the others go on.
  const r = s.request({':path': '/bytes/100000000', ':authority': authority});
  await new Promise(done => { r.on('data', () => { r.close(http2.constants.NGHTTP2_CANCEL); }); r.on('close', done); });
  await ask('after', {':path': '/after'});
  console.log(JSON.stringify(out));
  s.close();
})().catch(e => { console.log(JSON.stringify({error: String(e)})); process.exit(1); });
`

func TestNode(t *testing.T) {
	t.Parallel()
	node := program(t, "node", "nodejs")
	r := web(t, gateway.Config{}, echo("node"))
	for _, secure := range []bool{false, true} {
		url, ca := "http://"+r.plain, ""
		if secure {
			url, ca = "https://"+r.secure, r.ca.file(t)
		}
		text, err := run(t, "", node, "-e", nodeScript, url, ca, host)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		type answer struct {
			Status, Hints, Bytes int
			Body, Served, Length string
			Trailer, Late        string
		}
		var got map[string]answer
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		for name, want := range map[string]answer{
			"post":     {Status: 200, Body: "POST / 300000"},
			"trailers": {Status: 200, Body: "upbody", Trailer: "abc", Late: "node"},
			"large":    {Status: 200, Bytes: 3000000, Length: "3000000"},
			"hints":    {Status: 200, Hints: 1, Body: "after hints"},
			"head":     {Status: 200, Length: "77"},
			"many7":    {Status: 200, Body: "GET /many/7 0"},
			"after":    {Status: 200, Body: "GET /after 0"},
		} {
			g := got[name]
			if g.Status != want.Status || g.Served != "node" || want.Body != "" && g.Body != want.Body || want.Bytes != 0 && g.Bytes != want.Bytes ||
				want.Length != "" && g.Length != want.Length || g.Hints != want.Hints || g.Trailer != want.Trailer || g.Late != want.Late {
				t.Errorf("%s: %+v", name, g)
			}
		}
		if len(got) != 307 {
			t.Errorf("%d answers", len(got))
		}
	}
}

// pythonScript uses one connection of http.client for everything.
const pythonScript = `
import http.client, ssl, sys
host, port, ca, name = sys.argv[1:]
class Named(http.client.HTTPSConnection):
    def connect(self):
        http.client.HTTPConnection.connect(self)
        self.sock = self._context.wrap_socket(self.sock, server_hostname=name)
if ca:
    c = Named(host, int(port), context=ssl.create_default_context(cafile=ca), timeout=100)
else:
    c = http.client.HTTPConnection(host, int(port), timeout=100)
def ask(method, path, body=None, headers={}, **k):
    c.request(method, path, body, dict(headers, Host=name), **k)
    r = c.getresponse()
    b = r.read()
    print(method, path[:20], r.status, r.getheader('Served-By'), len(b), b[:40].decode(), flush=True)
    assert not r.will_close, path
ask('GET', '/')
sock = c.sock
ask('POST', '/', 'x' * 200000)
def parts():
    for i in range(100):
        yield b'y' * (i * 37 % 1000 + 1)
ask('PUT', '/', parts(), encode_chunked=True)
ask('POST', '/body', iter([b'one', b'two']), {'Transfer-Encoding': 'chunked'}, encode_chunked=True)
ask('GET', '/bytes/1000000')
ask('GET', '/bytes/1000000?chunked')
ask('HEAD', '/bytes/5')
ask('GET', '/status/204')
ask('GET', '/status/304')
ask('GET', '/hints') if sys.version_info >= (3, 12) else None
ask('GET', '/' + 'p' * 8000)
ask('GET', '/fields', None, {'Large': 'z' * 16000})
for i in range(500):
    ask('GET', '/%d' % i)
assert c.sock is sock, 'the connection was closed'
`

func TestPython(t *testing.T) {
	t.Parallel()
	python := program(t, "python3")
	r := web(t, gateway.Config{}, echo("py"))
	for _, secure := range []bool{false, true} {
		ca := ""
		if secure {
			ca = r.ca.file(t)
		}
		out, err := run(t, "", python, "-c", pythonScript, "127.0.0.1", r.port(secure), ca, host)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, want := range []string{
			"GET / 200 py 7 GET / 0", "POST / 200 py 13 POST / 200000", "POST /body 200 py 6 onetwo", "GET /bytes/1000000 200 py 1000000 ",
			"GET /bytes/1000000?chunk 200 py 1000000 ", "HEAD /bytes/5 200 py 0", "GET /status/204 204 py 0", "GET /status/304 304 py 0", "GET /499 200 py 10 GET /499 0",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("want %q in\n%s", want, short(out))
			}
		}
		if n := len(regexp.MustCompile(`(?m) 200 py `).FindAllString(out, -1)); n < 509 {
			t.Errorf("%d answers with 200", n)
		}
	}
}

// TestNetHTTP: Go's own client, with HTTP/1 and HTTP/2, many at a time on few connections.
func TestNetHTTP(t *testing.T) {
	t.Parallel()
	r := web(t, gateway.Config{}, echo("go"))
	for _, two := range []bool{false, true} {
		tr := r.transport(two)
		done := make(chan error, 8)
		for g := range 8 {
			go func() {
				for i := range 200 {
					path := fmt.Sprintf("/%d/%d", g, i)
					req, err := http.NewRequest("POST", r.url(i%2 == 0, path), strings.NewReader(strings.Repeat("b", i*97)))
					if err == nil {
						err = same(tr, req, fmt.Sprintf("POST %s %d", path, i*97))
					}
					if err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
		}
		for range 8 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
}
