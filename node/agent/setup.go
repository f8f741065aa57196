package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fingerpost/fingerpost/node/agent/envvar"
	"github.com/fingerpost/fingerpost/node/agent/object"
	"github.com/fingerpost/fingerpost/node/agent/podfile"
	"github.com/fingerpost/fingerpost/node/agent/volume"
	"github.com/fingerpost/fingerpost/node/network"
	"github.com/fingerpost/fingerpost/node/runtime"
)

// objectPatience is how long a pod waits for its ConfigMaps and Secrets to be
// looked for; a missing one is known sooner.
const objectPatience = 5 * time.Second

// stepSetup makes what containers need before they start, and keeps volumes up
// to date after that. The lock is held.
func (p *pod) stepSetup(ctx context.Context, now time.Time) time.Time {
	s := &p.setup
	if p.hold == nil {
		p.volumes = volume.New(volume.Config{Dir: filepath.Join(p.a.cfg.podDir(p.uid), "volumes"), Volatile: p.a.cfg.volatilePod(p.uid), Objects: p.a.objects})
		p.hold = p.a.objects.Hold(object.Refs(p.api), p.objectChanged)
	}
	if s.busy {
		return time.Time{}
	}
	if !s.stale && (s.done && s.next.IsZero() || now.Before(s.next)) {
		return s.next
	}
	s.busy, s.stale = true, false
	ctx, s.cancel = context.WithCancel(ctx)
	api, done := p.api, s.done
	p.task(func() {
		var (
			mounts map[string]volume.Volume
			again  time.Time
			ips    []string
		)
		err := p.safely(func() (err error) {
			mounts, again, ips, err = p.prepare(ctx, api, done)
			return err
		})
		p.mu.Lock()
		defer p.mu.Unlock()
		s.busy = false
		stopped := ctx.Err() != nil
		s.cancel()
		if err != nil {
			s.wait = min(max(s.wait*2, 500*time.Millisecond), 30*time.Second)
			s.next = time.Now().Add(s.wait)
			if !stopped {
				p.setupFailed(err)
			}
			return
		}
		s.done, s.sandbox, s.wait, s.next = true, true, 0, again
		s.mounts, s.ips = mounts, ips
		p.publish()
	})
	return time.Time{}
}

// objectChanged is called when an object that the pod uses has changed.
func (p *pod) objectChanged() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setup.stale = true
	for _, c := range p.containers {
		if c.waiting.reason == reasonConfig {
			c.next = time.Time{}
		}
	}
	p.poke()
}

func (p *pod) setupFailed(err error) {
	var v *volume.Error
	switch {
	case errors.As(err, &v):
		p.warning(nil, "FailedMount", "%s", v.Error())
	case errors.Is(err, network.ErrExhausted):
		p.warning(nil, "FailedCreatePodSandBox", "Failed to create pod sandbox: %v: delete pods of this node or give it a larger range", err)
	default:
		p.warning(nil, "FailedCreatePodSandBox", "Failed to create pod sandbox: %v", err)
	}
	p.a.cfg.Log.Warn("a pod cannot start yet", "pod", p.namespace+"/"+p.name, "error", err)
}

// fields are what the downward API tells.
func (p *pod) fields(api *corev1.Pod, ips []string) envvar.Fields {
	return envvar.Fields{Pod: api, PodIPs: ips, HostIPs: p.a.node.hostIPs(), Allocatable: p.a.node.allocatable}
}

// prepare makes volumes, and the first time network, files and the runtime's
// part.
func (p *pod) prepare(ctx context.Context, api *corev1.Pod, done bool) (map[string]volume.Volume, time.Time, []string, error) {
	fail := func(err error) (map[string]volume.Volume, time.Time, []string, error) {
		return nil, time.Time{}, nil, err
	}
	vctx, cancel := context.WithTimeout(ctx, objectPatience)
	defer cancel()
	p.mu.Lock()
	ips := p.setup.ips
	p.mu.Unlock()
	var (
		both      sync.WaitGroup
		netns     string
		attachErr error
		fields    = p.fields(api, ips)
	)
	if !done { // beside the volumes: each takes its time
		both.Go(func() {
			attachErr = p.safely(func() (err error) {
				ips, netns, err = p.attach(ctx, api)
				return err
			})
		})
	}
	mounts, again, err := p.volumes.Mount(vctx, fields)
	both.Wait()
	switch {
	case err != nil:
		return fail(err)
	case attachErr != nil:
		return fail(attachErr)
	case done:
		return mounts, again, ips, nil
	}
	hostname, err := p.writeFiles(api, ips)
	if err != nil {
		return fail(err)
	}
	config := runtime.PodConfig{
		UID: p.uid, Namespace: p.namespace, Name: p.name, NetNS: netns, Hostname: hostname,
		HostPID: api.Spec.HostPID, HostIPC: api.Spec.HostIPC,
		SharePID: api.Spec.ShareProcessNamespace != nil && *api.Spec.ShareProcessNamespace,
	}
	if api.Spec.HostNetwork {
		config.Hostname = ""
	}
	if sc := api.Spec.SecurityContext; sc != nil && len(sc.Sysctls) > 0 {
		config.Sysctls = map[string]string{}
		for _, s := range sc.Sysctls {
			config.Sysctls[s.Name] = s.Value
		}
	}
	p.calls.Lock()
	defer p.calls.Unlock()
	if err := p.a.rt.StartPod(ctx, config); err != nil {
		return fail(err)
	}
	if err := p.openHostPorts(api); err != nil {
		return fail(err)
	}
	return mounts, again, ips, nil
}

// attach gives the pod its addresses.
func (p *pod) attach(ctx context.Context, api *corev1.Pod) (ips []string, netns string, err error) {
	if p.a.network == nil || api.Spec.HostNetwork {
		return p.a.node.hostIPs(), "", nil
	}
	at, err := p.a.network.Attach(ctx, p.uid)
	if err != nil {
		return nil, "", err
	}
	for _, addr := range at.Addrs {
		ips = append(ips, addr.String())
	}
	return ips, at.NetNS, nil
}

func (p *pod) openHostPorts(api *corev1.Pod) error {
	if p.a.network == nil || api.Spec.HostNetwork {
		return nil
	}
	var ports []network.HostPort
	for _, h := range hostPorts(api) {
		addr, err := netip.ParseAddr(h.HostIP)
		if h.HostIP != "" && err != nil {
			return fmt.Errorf("host port %d: %w", h.HostPort, err)
		}
		ports = append(ports, network.HostPort{
			HostIP: addr, Port: uint16(h.HostPort), Protocol: network.Protocol(h.Protocol), ContainerPort: uint16(h.ContainerPort),
		})
	}
	if len(ports) == 0 {
		return nil
	}
	return p.a.network.SetHostPorts(p.uid, ports)
}

// writeFiles writes what tells containers who and where they are.
func (p *pod) writeFiles(api *corev1.Pod, ips []string) (hostname string, err error) {
	name, domain, hostname, err := podfile.Hostname(api, p.a.cfg.ClusterDomain)
	if err != nil {
		return "", err
	}
	if api.Spec.HostNetwork {
		if hostname, err = os.Hostname(); err != nil {
			return "", err
		}
		name = hostname
	}
	hosts := podfile.Hosts(ips, name, domain, api.Spec.HostAliases)
	if api.Spec.HostNetwork {
		machine, err := os.ReadFile("/etc/hosts")
		if err != nil && !os.IsNotExist(err) {
			return "", err
		}
		hosts = podfile.HostHosts(string(machine), api.Spec.HostAliases)
	}
	cluster := podfile.Cluster{Domain: p.a.cfg.ClusterDomain}
	for _, a := range p.a.cfg.ClusterDNS {
		cluster.DNS = append(cluster.DNS, a.String())
	}
	resolv, notes := podfile.PodResolv(api, p.a.machine, cluster)
	for _, n := range notes {
		p.warning(nil, "DNSConfigForming", "%s", n)
	}
	files := map[string]string{"hosts": hosts, "resolv.conf": resolv.String(), "hostname": name + "\n"}
	for file, text := range files {
		path := p.a.cfg.filePath(p.uid, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		// Written in place: the file may be mounted into containers already.
		if is, err := os.ReadFile(path); err == nil && string(is) == text {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	return hostname, nil
}

// hostPorts gives the ports of a pod that are opened on the node.
func hostPorts(api *corev1.Pod) []corev1.ContainerPort {
	var ports []corev1.ContainerPort
	add := func(list []corev1.Container) {
		for i := range list {
			for _, cp := range list[i].Ports {
				if cp.HostPort > 0 {
					if cp.Protocol == "" {
						cp.Protocol = corev1.ProtocolTCP
					}
					ports = append(ports, cp)
				}
			}
		}
	}
	add(api.Spec.InitContainers)
	add(api.Spec.Containers)
	return ports
}
