package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fingerpost/fingerpost/node/agent/envvar"
	"github.com/fingerpost/fingerpost/node/agent/volume"
	"github.com/fingerpost/fingerpost/node/runtime"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// launch is what a run is made from; nobody else changes it.
type launch struct {
	api     *corev1.Pod
	spec    *corev1.Container
	image   Image
	attempt int
	ips     []string
	mounts  map[string]volume.Volume
}

// config makes the runtime's configuration of a run.
func (c *container) config(ctx context.Context, l launch) (runtime.ContainerConfig, error) {
	a, p := c.p.a, c.p
	cfg := runtime.ContainerConfig{
		ID:    runtime.ContainerID{PodUID: p.uid, Name: c.name, Attempt: l.attempt},
		Image: l.spec.Image, WorkDir: l.spec.WorkingDir, StopSignal: l.image.StopSignal,
		Root:    runtime.Root{Layers: l.image.Layers},
		TTY:     l.spec.TTY,
		Stdin:   l.spec.Stdin,
		LogPath: a.cfg.logPath(p.uid, c.name, l.attempt),
		Labels: map[string]string{
			labelNamespace: p.namespace, labelPod: p.name, labelUID: p.uid, labelContainer: c.name, labelImageID: l.image.ID,
		},
		StdinOnce: l.spec.StdinOnce,
	}
	if cfg.WorkDir == "" {
		cfg.WorkDir = l.image.WorkDir
	}
	if lc := l.spec.Lifecycle; lc != nil && lc.StopSignal != nil {
		cfg.StopSignal = string(*lc.StopSignal)
	}
	if err := security(&cfg, l); err != nil {
		return cfg, err
	}
	env, err := c.environment(ctx, l)
	if err != nil {
		return cfg, err
	}
	cfg.Args = envvar.ExpandAll(command(l), env.Lookup)
	if len(cfg.Args) == 0 {
		return cfg, errors.New("no command specified: the image has none, give one in the pod")
	}
	cfg.Env = layered(l.image.Env, env.List(), cfg.TTY)
	if cfg.Mounts, err = c.containerMounts(l, env); err != nil {
		return cfg, err
	}
	a.limits(&cfg, l)
	return cfg, c.makeFiles(l.attempt)
}

// command gives the command line: what the pod says, else the image.
func command(l launch) []string {
	switch {
	case len(l.spec.Command) > 0:
		return slices.Concat(l.spec.Command, l.spec.Args)
	case len(l.spec.Args) > 0:
		return slices.Concat(l.image.Entrypoint, l.spec.Args)
	}
	return slices.Concat(l.image.Entrypoint, l.image.Cmd)
}

// layered puts the container's variables over the image's.
func layered(image, own []string, tty bool) []string {
	var out []string
	index := map[string]int{}
	terminal := []string{}
	if tty {
		terminal = append(terminal, "TERM=xterm")
	}
	for _, v := range slices.Concat([]string{defaultPath}, terminal, image, own) {
		name, _, _ := strings.Cut(v, "=")
		if i, there := index[name]; there {
			out[i] = v
			continue
		}
		index[name] = len(out)
		out = append(out, v)
	}
	return out
}

func (c *container) environment(ctx context.Context, l launch) (*envvar.Env, error) {
	a, p := c.p.a, c.p
	ns := p.namespace
	if l.api.Spec.EnableServiceLinks != nil && !*l.api.Spec.EnableServiceLinks {
		ns = "" // those that every namespace has
	}
	services, err := a.cfg.Env(ns)
	if err != nil {
		return nil, fmt.Errorf("services have not yet been read at least once, cannot construct envvars: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, objectPatience)
	defer cancel()
	env, err := envvar.Make(l.spec, envvar.Sources{
		ConfigMap: func(name string) (map[string]string, error) {
			o, err := a.objects.ConfigMap(ctx, p.namespace, name)
			if err != nil {
				return nil, err
			}
			return o.Data, nil
		},
		Secret: func(name string) (map[string][]byte, error) {
			o, err := a.objects.Secret(ctx, p.namespace, name)
			if err != nil {
				return nil, err
			}
			return o.Data, nil
		},
		Fields: p.fields(l.api, l.ips), Services: services,
	})
	if err != nil {
		return nil, err
	}
	if name, err := os.ReadFile(a.cfg.filePath(p.uid, "hostname")); err == nil {
		env.SetDefault("HOSTNAME", strings.TrimSpace(string(name)))
	}
	return env, nil
}

// containerMounts gives what is put into the container's file system.
func (c *container) containerMounts(l launch, env *envvar.Env) ([]runtime.Mount, error) {
	a, p := c.p.a, c.p
	var mounts []runtime.Mount
	taken := map[string]bool{}
	for _, m := range l.spec.VolumeMounts {
		v, ok := l.mounts[m.Name]
		if !ok {
			return nil, fmt.Errorf("cannot find volume %q to mount into container %q", m.Name, c.name)
		}
		mount := runtime.Mount{Source: v.Path, Target: m.MountPath, ReadOnly: m.ReadOnly || v.ReadOnly}
		if !filepath.IsAbs(mount.Target) {
			mount.Target = "/" + mount.Target
		}
		sub := m.SubPath
		if m.SubPathExpr != "" {
			sub = envvar.Expand(m.SubPathExpr, env.Lookup)
		}
		if sub != "" {
			path, err := volume.Sub(v.Path, sub)
			if err != nil {
				return nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", m.Name, c.name, err)
			}
			mount.Source = path
		}
		if m.MountPropagation != nil {
			mount.Shared = *m.MountPropagation == corev1.MountPropagationBidirectional
			mount.Slave = *m.MountPropagation == corev1.MountPropagationHostToContainer
		}
		taken[filepath.Clean(mount.Target)] = true
		mounts = append(mounts, mount)
	}
	for _, file := range []string{"hosts", "hostname", "resolv.conf"} {
		if target := "/etc/" + file; !taken[target] {
			mounts = append(mounts, runtime.Mount{Source: a.cfg.filePath(p.uid, file), Target: target})
		}
	}
	target := l.spec.TerminationMessagePath
	if target == "" {
		target = corev1.TerminationMessagePathDefault
	}
	if !taken[filepath.Clean(target)] {
		mounts = append(mounts, runtime.Mount{Source: a.cfg.terminationPath(p.uid, c.name, l.attempt), Target: target})
	}
	return mounts, nil
}

// makeFiles makes the files of a run and removes those of old ones: the log of
// the run before is kept.
func (c *container) makeFiles(attempt int) error {
	a, uid := c.p.a, c.p.uid
	if err := os.MkdirAll(filepath.Dir(a.cfg.logPath(uid, c.name, attempt)), 0o755); err != nil {
		return err
	}
	message := a.cfg.terminationPath(uid, c.name, attempt)
	if err := os.MkdirAll(filepath.Dir(message), 0o755); err != nil {
		return err
	}
	// Whoever the container runs as may write it.
	if err := os.WriteFile(message, nil, 0o666); err != nil {
		return err
	}
	if err := os.Chmod(message, 0o666); err != nil {
		return err
	}
	if attempt < 2 {
		return nil
	}
	old := a.cfg.logPath(uid, c.name, attempt-2)
	logs, err := filepath.Glob(old + "*")
	for _, path := range append(logs, a.cfg.terminationPath(uid, c.name, attempt-2)) {
		_ = os.Remove(path)
	}
	return err
}

// security sets who the command is and what it may.
func security(cfg *runtime.ContainerConfig, l launch) error {
	pod, own := l.api.Spec.SecurityContext, l.spec.SecurityContext
	if pod == nil {
		pod = &corev1.PodSecurityContext{}
	}
	if own == nil {
		own = &corev1.SecurityContext{}
	}
	user, group, nonRoot := pod.RunAsUser, pod.RunAsGroup, pod.RunAsNonRoot
	if own.RunAsUser != nil {
		user = own.RunAsUser
	}
	if own.RunAsGroup != nil {
		group = own.RunAsGroup
	}
	if own.RunAsNonRoot != nil {
		nonRoot = own.RunAsNonRoot
	}
	if user != nil {
		cfg.User.UID = *user
	} else {
		cfg.UserName = l.image.User
	}
	if group != nil {
		cfg.User.GID = *group
	}
	cfg.User.Groups = append(cfg.User.Groups, pod.SupplementalGroups...)
	if pod.FSGroup != nil {
		cfg.User.Groups = append(cfg.User.Groups, *pod.FSGroup)
	}
	if nonRoot != nil && *nonRoot {
		if err := notRoot(user, l.image.User); err != nil {
			return err
		}
	}
	cfg.Root.ReadOnly = own.ReadOnlyRootFilesystem != nil && *own.ReadOnlyRootFilesystem
	cfg.Privileged = own.Privileged != nil && *own.Privileged
	cfg.NoNewPrivs = own.AllowPrivilegeEscalation != nil && !*own.AllowPrivilegeEscalation
	if caps := own.Capabilities; caps != nil {
		cfg.AddCaps, cfg.DropCaps = capNames(caps.Add), capNames(caps.Drop)
	}
	return nil
}

func notRoot(user *int64, image string) error {
	if user != nil {
		if *user == 0 {
			return errors.New("container's runAsUser breaks non-root policy")
		}
		return nil
	}
	name, _, _ := strings.Cut(image, ":")
	if name == "" {
		return errors.New("container has runAsNonRoot and image will run as root")
	}
	uid, err := strconv.ParseInt(name, 10, 64)
	switch {
	case err != nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root", name)
	case uid == 0:
		return errors.New("container has runAsNonRoot and image will run as root")
	}
	return nil
}

func capNames(list []corev1.Capability) []string {
	var out []string
	for _, c := range list {
		out = append(out, strings.TrimPrefix(strings.ToUpper(string(c)), "CAP_"))
	}
	return out
}

// limits sets what the container may use.
func (a *Agent) limits(cfg *runtime.ContainerConfig, l launch) {
	r := l.spec.Resources
	if q, ok := r.Limits[corev1.ResourceCPU]; ok {
		cfg.CPUMillis = q.MilliValue()
	}
	if q, ok := r.Limits[corev1.ResourceMemory]; ok {
		cfg.MemoryBytes = q.Value()
	}
	request, ok := r.Requests[corev1.ResourceCPU]
	if !ok {
		request = r.Limits[corev1.ResourceCPU]
	}
	cfg.CPUShares = max(request.MilliValue()*1024/1000, 2)
	const guaranteed, bestEffort = -997, 1000
	switch l.api.Status.QOSClass {
	case corev1.PodQOSGuaranteed:
		cfg.OOMScoreAdj = guaranteed
	case corev1.PodQOSBurstable:
		memory := r.Requests.Memory().Value()
		all := max(a.node.capacity.Memory().Value(), 1)
		cfg.OOMScoreAdj = int(min(max(1000-1000*memory/all, 1000+guaranteed), bestEffort-1))
	default:
		cfg.OOMScoreAdj = bestEffort
	}
}
