//go:build linux

package e2e

import (
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// Walkthrough 17: the API for local programs without credentials, by kubectl
// and by our own command. Names that a web page could use to get there are
// refused.
func TestWalkthroughProxy(t *testing.T) {
	t.Parallel()
	sys := common.system(t)
	ip := sys.site.ip(17, 1)
	for _, tool := range []struct {
		name    string
		command func(t testing.TB, args ...string) *exec.Cmd
	}{{"kubectl", sys.kubectl}, {"fingerpost", sys.fingerpost}} {
		for _, c := range []struct {
			name string
			args []string
			host string
			want int
		}{
			{"itself", nil, "localhost", 200},
			{"another host", nil, "evil.example.com", 403},
			{"accepted host", []string{"--accept-hosts=^good\\.example\\.com$"}, "good.example.com", 200},
			{"not accepted host", []string{"--accept-hosts=^good\\.example\\.com$"}, "localhost", 403},
			{"every host, as the tutorial writes it", []string{"--accept-hosts=^.*$"}, "evil.example.com", 200},
		} {
			t.Run(tool.name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				p := start(t, "proxy", tool.command(t, append([]string{"proxy", "--address=" + ip, "--port=0"}, c.args...)...))
				if err := p.waitFor("Starting to serve on "); err != nil {
					t.Fatal(err)
				}
				_, addr, _ := strings.Cut(p.text(), "Starting to serve on ")
				addr, _, _ = strings.Cut(addr, "\n")
				req, err := http.NewRequest("GET", "http://"+addr+"/api/v1/namespaces/default/services/kubernetes", nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = c.host
				res, err := caller.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				if err != nil || res.StatusCode != c.want {
					t.Errorf("Host %s: %d %s %v, want %d", c.host, res.StatusCode, body, err, c.want)
				}
				if c.want == 200 && !strings.Contains(string(body), `"kind": "Service"`) && !strings.Contains(string(body), `"kind":"Service"`) {
					t.Errorf("the answer is no Service: %s", body)
				}
			})
		}
	}
}
