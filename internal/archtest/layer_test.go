package archtest

import (
	"slices"
	"strings"
	"testing"
)

// layer says which packages of this module a tree may import, besides what is
// above and below it in its own directory. The longest matching tree counts.
type layer struct {
	tree string
	may  []string
	why  string
}

// layers is the architecture: doors write, views read, one list composes.
// A new top-level directory needs a line here and in ARCHITECTURE.md.
var layers = []layer{
	{"catalog", nil, "the contract stands on nothing, so that everything can stand on it"},
	{"catalog/viewtest", []string{"catalog", "internal/script"}, "the conformance suite of views reads scripts"},
	{"catalog/disk", []string{"catalog"}, "the catalog's last state in a file"},
	{"health", nil, "pure state machines: time and I/O are passed in"},
	{"balance", nil, "pure choice among endpoints, shared by virtual IPs, gateway and client"},
	{"wire", nil, "foreign codecs turn bytes into structs and back, and know nothing of us"},

	{"api", nil, "our kinds are what strangers import: no code of the system comes with them"},
	{"store", []string{"internal"}, "the store keeps bytes; what they mean is the API server's business"},
	{"apiserver", []string{"api", "store", "internal"}, "the API is complete without controllers and views; they are its clients"},
	{"controller", []string{"api", "health", "internal"}, "controllers are clients of the API: they must work against another server's"},

	{"door", []string{"catalog", "api", "health", "balance", "wire", "internal"}, "a door writes; it imports no sibling, no view, no store, no server, so that it can run in any process"},
	{"view", []string{"catalog", "health", "balance", "wire", "internal"}, "a view is a function of the catalog: it imports no sibling, no door, no API and no store"},
	{"view/vip", []string{"catalog", "health", "balance", "wire", "internal"}, "one view with several drivers, which share what a proxy must do"},
	{"view/gateway", []string{"catalog", "health", "balance", "wire", "internal"}, "one view in several packages: what it routes by, whom it sends to, and the two versions of the protocol"},
	{"registry", []string{"catalog", "api", "health", "balance", "wire", "internal"}, "a registry is a door and a view of one protocol, and stands alone as they do"},
	{"node", []string{"catalog", "api", "health", "balance", "door", "view", "internal"}, "the node agent joins doors and views of one machine; it needs no server"},
	{"client", []string{"wire", "balance"}, "an SDK with few dependencies: programs embed it"},

	{"internal", nil, "leaf packages: no idea of what uses them"},
	{"internal/archtest", []string{"cli"}, "the README's commands are held against the command line"},

	{"server", []string{"api", "apiserver", "balance", "catalog", "controller", "door", "health", "internal", "node", "registry", "store", "view"}, "the composition root, the one place that knows every implementation"},
	{"cli", []string{"api", "apiserver", "balance", "catalog", "client", "controller", "door", "health", "internal", "node", "registry", "server", "store", "view"}, "commands compose too: run needs a door, explain a view"},
	{"ui", []string{"catalog", "api", "internal"}, "the dashboard shows the catalog"},
	{"cmd", []string{"cli"}, "a command is a main function and nothing else"},

	{"test", []string{"*"}, "whole-system tests may use everything"},
	{"bench", []string{"*"}, "benchmarks may use everything"},
	{"examples", []string{"*"}, "examples may use everything public"},
	{"hack", []string{"*"}, "tools for the people who work here"},
}

func layerOf(dir string) *layer {
	var best *layer
	for i := range layers {
		if l := &layers[i]; within(dir, l.tree) && (best == nil || len(l.tree) > len(best.tree)) {
			best = l
		}
	}
	return best
}

// TestLayers: imports inside the module follow the table. Tests are free, but
// for the composition: whoever tests with it belongs into test/.
func TestLayers(t *testing.T) {
	eachFile(t, func(p *pkg, f *file) {
		l := layerOf(p.dir)
		if l == nil {
			t.Errorf("%s: no layer is known for %s; add it to the table in internal/archtest and to ARCHITECTURE.md", f.path, p.dir)
			return
		}
		for _, imp := range f.imports {
			dir, ok := own(imp)
			if !ok || within(dir, p.dir) || within(p.dir, dir) {
				continue
			}
			if f.test && !within(dir, "server", "cli") {
				continue
			}
			// Below internal/ and wire/ each package is a tree of its own, and
			// so are the doors and the views.
			if within(dir, l.may...) || slices.Contains(l.may, "*") || within(dir, l.tree) && !isolated(l.tree) {
				continue
			}
			t.Errorf("%s imports %s, which %s may not: %s", f.path, dir, l.tree, l.why)
		}
	})
}

// isolated trees hold packages that must not import each other.
func isolated(tree string) bool {
	return slices.Contains([]string{"door", "view", "registry", "wire"}, tree)
}

// restriction keeps imports from outside the module to some trees.
type restriction struct {
	imports []string // trees of imports; of the standard library single packages
	only    []string // trees of this module that may have them
	why     string
}

var restrictions = []restriction{
	{
		[]string{"k8s.io", "sigs.k8s.io"},
		[]string{"api", "apiserver", "controller", "door/kube", "door/process", "node", "view/gateway", "server", "cli"},
		"Kubernetes' libraries stay at the edges: the catalog and the views know no Kubernetes type, so that other sources are equals and small programs stay small",
	},
	{
		[]string{"k8s.io/kubernetes"},
		[]string{"apiserver", "controller/housekeeping", "controller/workload"},
		"k8s.io/kubernetes promises no stable API: an upgrade must touch three packages, not twenty",
	},
	{
		[]string{"k8s.io/apiserver", "k8s.io/apiextensions-apiserver"},
		[]string{"apiserver"},
		"how the API is served is the business of one package",
	},
	{
		[]string{"k8s.io/kubectl", "k8s.io/cli-runtime"},
		[]string{"cli"},
		"the command line is for people, no part of the system may lean on it",
	},
	{
		[]string{"go.etcd.io"},
		[]string{"store", "apiserver", "registry/etcd"},
		"etcd is an implementation of the store, which the API server is handed a client of; everything else speaks to the API",
	},
	{
		[]string{"github.com/spf13"},
		[]string{"cli"},
		"flags and commands are read in one place and passed on as plain structs",
	},
	{
		[]string{"github.com/vishvananda", "github.com/cilium/ebpf", "github.com/google/nftables", "github.com/mdlayher", "sigs.k8s.io/knftables"},
		[]string{"internal/kernel", "view/vip", "view/announce", "node"},
		"what changes the machine's network is in few places, each with a fallback for other systems",
	},
	{
		[]string{"golang.org/x/sys"},
		[]string{"internal/kernel", "view/vip", "view/announce", "node", "store", "view/dns", "health/probe", "door/process"},
		"system calls: the store asks for locks and free space, DNS for shared sockets, process doors for process groups; everything else goes through internal/kernel",
	},
	{
		[]string{"github.com/golang/glog", "github.com/sirupsen/logrus", "log"},
		nil,
		"logs are structured (log/slog) and passed in",
	},
	{
		[]string{"io/ioutil", "github.com/pkg/errors", "math/rand", "golang.org/x/exp"},
		nil,
		"the standard library has a better one by now",
	},
}

// TestRestrictions: imports from outside stay where they belong. Tests are
// free: an upstream package is a good oracle.
func TestRestrictions(t *testing.T) {
	eachFile(t, func(p *pkg, f *file) {
		if f.test || within(p.dir, "test", "bench", "examples", "hack") {
			return
		}
		for _, r := range restrictions {
			for _, imp := range f.imports {
				hit := slices.Contains(r.imports, imp) || !standard(imp) && within(imp, r.imports...)
				if hit && !within(p.dir, r.only...) {
					t.Errorf("%s imports %s, allowed in %s only: %s", f.path, imp, listOr(r.only, "no package"), r.why)
				}
			}
		}
	})
}

// TestPureCore: the packages that everything stands on import the standard
// library only, and of that nothing that reaches out of the process.
func TestPureCore(t *testing.T) {
	pure := []string{"catalog", "health", "balance", "wire"}
	outside := []string{"net", "net/http", "os", "os/exec", "syscall", "log", "log/slog", "database/sql", "plugin", "testing"}
	eachFile(t, func(p *pkg, f *file) {
		if f.test || !within(p.dir, pure...) || within(p.dir, "catalog/viewtest", "catalog/disk", "health/probe") {
			return
		}
		for _, imp := range f.imports {
			if _, ours := own(imp); !standard(imp) && !ours {
				t.Errorf("%s imports %s: %s import only the standard library, so that doors and views can be written without ours", f.path, imp, strings.Join(pure, ", "))
			}
			if slices.Contains(outside, imp) {
				t.Errorf("%s imports %s: the core has no clock, network, disk or log of its own; they are passed in, so that tests own them", f.path, imp)
			}
		}
	})
}

func listOr(s []string, none string) string {
	if len(s) == 0 {
		return none
	}
	return strings.Join(s, ", ")
}
