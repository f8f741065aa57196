// Package builtin has small programs that stand in for images of tutorials,
// so that a manifest that names one shows something on a machine that has
// never pulled an image. They are ours, not the images they are named after:
// one that is mapped, loaded or pulled comes before them.
//
// Each is the fingerpost executable itself, as "fingerpost demo PROGRAM",
// which has the programs' code in it. Only for images that are nothing but a
// shell, the machine's own stands in.
package builtin

import (
	"path"
	"slices"
	"strconv"

	"github.com/fingerpost/fingerpost/node/image"
)

// Program is one that stands in.
type Program struct {
	Name  string
	Port  int // 0: none
	Short string
	// Images it answers for: the last part of a repository's name, or its
	// last parts.
	Images []string
}

// shell is no program of ours but the machine's.
const shell = "shell"

// Programs lists them.
func Programs() []Program {
	return []Program{
		{"web", 80, "a page that names the host and shows the request", []string{"library/nginx", "library/httpd", "nginxinc/nginx-unprivileged"}},
		{"hostnames", 9376, "the name of the host, over HTTP", []string{"serve_hostname", "serve-hostname", "e2e-test-images/serve-hostname"}},
		{"default-backend", 8080, "404 for everything but /healthz", []string{"library/defaultbackend", "defaultbackend", "defaultbackend-amd64"}},
		{"echo", 8080, "the request, as text", []string{"echoserver", "echo-server"}},
		{"listen", 3306, "accepts connections and says what it is", []string{"library/mysql", "library/mariadb"}},
		{"pause", 0, "nothing, until it is stopped", []string{"pause", "pause-amd64"}},
		{shell, 0, "the machine's own shell and tools", []string{"library/busybox", "library/alpine"}},
	}
}

// hosts are the registries whose images have stand-ins: somebody's own image
// that happens to be called nginx has none.
func hosts() []string {
	return []string{"docker.io", "k8s.gcr.io", "registry.k8s.io", "gcr.io/google_containers", "gcr.io/google-containers"}
}

// Images gives what image.Config.BuiltIn wants. The executable is the path of
// fingerpost on this machine.
func Images(executable string) func(image.Name) (image.Image, bool) {
	programs := Programs()
	return func(n image.Name) (image.Image, bool) {
		for _, p := range programs {
			if !slices.ContainsFunc(p.Images, func(i string) bool {
				return slices.ContainsFunc(hosts(), func(h string) bool { return n.Repository == path.Join(h, i) })
			}) {
				continue
			}
			if p.Name == shell {
				return image.Image{ID: "builtin:" + shell, Source: image.BuiltIn, Cmd: []string{"/bin/sh"}}, true
			}
			img := image.Image{ID: "builtin:" + p.Name, Source: image.BuiltIn, Entrypoint: []string{executable, "demo", p.Name}}
			if p.Port != 0 {
				img.Entrypoint = append(img.Entrypoint, "--port="+strconv.Itoa(p.Port))
			}
			// What a pod gives as args is meant for the real program.
			img.Entrypoint = append(img.Entrypoint, "--")
			return img, true
		}
		return image.Image{}, false
	}
}
