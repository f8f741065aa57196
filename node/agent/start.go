package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fingerpost/fingerpost/node/runtime"
)

// Labels of containers, for people and for the next agent.
const (
	labelNamespace = "io.kubernetes.pod.namespace"
	labelPod       = "io.kubernetes.pod.name"
	labelUID       = "io.kubernetes.pod.uid"
	labelContainer = "io.kubernetes.container.name"
	labelImageID   = "fingerpost.dev/image-id"
)

// Reasons for which a container waits.
const (
	reasonConfig    = "CreateContainerConfigError"
	reasonCreate    = "CreateContainerError"
	reasonPull      = "ErrImagePull"
	reasonBackOff   = "ImagePullBackOff"
	reasonNever     = "ErrImageNeverPull"
	reasonImageName = "InvalidImageName"
)

// configRetry is the pause after a configuration that cannot be made.
const configRetry = 10 * time.Second

// start makes another run of the container, in a task. The lock is held.
func (c *container) start(ctx context.Context) {
	p := c.p
	c.busy = true
	ctx, c.cancel = context.WithCancel(ctx)
	spec, api, attempt := c.spec, p.api, c.attempt+1
	ips, mounts := p.setup.ips, maps.Clone(p.setup.mounts)
	p.task(func() {
		defer func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			c.busy = false
			c.cancel()
			p.publish()
		}()
		var img Image
		var cfg runtime.ContainerConfig
		if err := p.safely(func() (err error) {
			img, err = c.resolve(ctx, api, spec)
			return err
		}); err != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			if ctx.Err() == nil {
				c.imageFailed(err)
			}
			return
		}
		if err := p.safely(func() (err error) {
			cfg, err = c.config(ctx, launch{api: api, spec: spec, image: img, attempt: attempt, ips: ips, mounts: mounts})
			return err
		}); err != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			if ctx.Err() == nil {
				c.configFailed(reasonConfig, err)
			}
			return
		}
		c.launch(ctx, cfg, img)
	})
}

// resolve finds the image.
func (c *container) resolve(ctx context.Context, api *corev1.Pod, spec *corev1.Container) (Image, error) {
	var auths [][]byte
	for _, r := range api.Spec.ImagePullSecrets {
		sctx, cancel := context.WithTimeout(ctx, objectPatience)
		s, err := c.p.a.objects.Secret(sctx, c.p.namespace, r.Name)
		cancel()
		if err != nil { // the registry may do without
			c.p.warning(nil, "FailedToRetrieveImagePullSecret", "Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", r.Name)
			continue
		}
		for _, key := range []string{corev1.DockerConfigJsonKey, corev1.DockerConfigKey} {
			if data := s.Data[key]; len(data) > 0 {
				auths = append(auths, data)
			}
		}
	}
	if spec.ImagePullPolicy == corev1.PullAlways {
		c.p.normal(c, "Pulling", "Pulling image %q", spec.Image)
	}
	begin := time.Now()
	img, err := c.p.a.cfg.Images.Resolve(ctx, spec.Image, spec.ImagePullPolicy, auths)
	if err != nil {
		return img, err
	}
	if img.Pulled {
		c.p.normal(c, "Pulled", "Successfully pulled image %q in %s", spec.Image, time.Since(begin).Round(time.Millisecond))
	} else {
		c.p.normal(c, "Pulled", "Container image %q already present on machine", spec.Image)
	}
	return img, nil
}

// imageFailed notes that there is no image. The first failure is shown as it
// is, the wait for the next attempt as back-off.
func (c *container) imageFailed(err error) {
	now, image := time.Now(), c.spec.Image
	again := c.pullWait > 0
	c.pullWait = min(max(c.pullWait*2, firstBackOff), longestBackOff)
	c.next, c.told = now.Add(c.pullWait), true
	switch {
	case errors.Is(err, ErrImageName):
		c.waiting = waiting{reasonImageName, fmt.Sprintf("Failed to apply default image tag %q: %v", image, err)}
		c.p.warning(c, "InspectFailed", "%s", c.waiting.message)
	case errors.Is(err, ErrImageMissing):
		c.waiting = waiting{reasonNever, fmt.Sprintf("Container image %q is not present with pull policy of %s: %v", image, c.spec.ImagePullPolicy, err)}
		c.p.warning(c, "ErrImageNeverPull", "%s", c.waiting.message)
	default:
		c.waiting = waiting{reasonPull, err.Error()}
		c.p.warning(c, "Failed", "Failed to pull image %q: %v", image, err)
		c.p.warning(c, "Failed", "Error: %s", reasonPull)
		backOff := waiting{reasonBackOff, fmt.Sprintf("Back-off pulling image %q: %s: %v", image, reasonPull, err)}
		show := func() {
			c.waiting = backOff
			c.p.normal(c, "BackOff", "Back-off pulling image %q", image)
			c.p.warning(c, "Failed", "Error: %s", reasonBackOff)
		}
		if again {
			show()
			break
		}
		time.AfterFunc(2*time.Second, func() {
			c.p.mu.Lock()
			defer c.p.mu.Unlock()
			if c.waiting.reason == reasonPull && !c.busy && !c.p.stop.begun {
				show()
				c.p.publish()
			}
		})
	}
}

// configFailed notes that the container cannot be made as it is written.
func (c *container) configFailed(reason string, err error) {
	c.waiting = waiting{reason, err.Error()}
	c.next, c.told = time.Now().Add(configRetry), true
	c.p.warning(c, "Failed", "Error: %s", err)
}

// launch starts the command and runs the hook after it.
func (c *container) launch(ctx context.Context, cfg runtime.ContainerConfig, img Image) {
	p := c.p
	if ctx.Err() != nil {
		return
	}
	begin := time.Now()
	err := p.safely(func() error {
		p.calls.Lock()
		defer p.calls.Unlock()
		return p.a.rt.StartContainer(ctx, cfg)
	})
	if err != nil && !errors.Is(err, runtime.ErrCannotRun) {
		p.a.metrics.starts.WithLabelValues("failed").Inc()
		p.mu.Lock()
		defer p.mu.Unlock()
		if ctx.Err() == nil {
			c.configFailed(reasonCreate, err)
			if errors.Is(err, runtime.ErrNotFound) {
				p.setup.done, p.setup.next = false, time.Time{} // the runtime lost the pod: make it anew
				c.next = time.Now().Add(time.Second)
			}
		}
		return
	}
	p.mu.Lock()
	if c.ended() {
		c.last = c.terminated()
	}
	c.began(begin)
	c.attempt, c.lost, c.message, c.pullWait = cfg.ID.Attempt, false, "", 0
	c.imageID, c.image = img.ID, cfg.Image
	c.waiting, c.next, c.told = waiting{}, time.Time{}, false
	c.run = runtime.Container{ID: cfg.ID, Image: cfg.Image, Started: begin, PID: 1, LogPath: cfg.LogPath}
	c.since, c.doomed = time.Now(), ""
	if err != nil {
		p.a.metrics.starts.WithLabelValues("failed").Inc()
		c.ends(runtime.Container{ID: cfg.ID, Started: begin, Ended: time.Now(), ExitCode: 128, Failure: err.Error()})
		p.warning(c, "Failed", "Error: %v", err)
		p.mu.Unlock()
		return
	}
	p.a.metrics.starts.WithLabelValues("ok").Inc()
	p.normal(c, "Created", "Container created")
	p.normal(c, "Started", "Container started")
	hook := c.spec.Lifecycle != nil && c.spec.Lifecycle.PostStart != nil
	if !hook {
		c.up()
	}
	p.publish()
	p.mu.Unlock()

	// It may have ended before anybody knew its number.
	p.a.refresh(ctx, map[string]bool{p.uid: true})
	if !hook {
		return
	}
	err = p.safely(func() error { return p.hook(ctx, c, c.spec.Lifecycle.PostStart) })
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !c.running():
	case err == nil:
		c.up()
	case ctx.Err() == nil:
		p.warning(c, "FailedPostStartHook", "PostStartHook failed: %v", err)
		c.doomed = "FailedPostStartHook" // killed when this task is done
	}
}

// up says that a run is fully there, as far as no probe says otherwise.
func (c *container) up() {
	c.hooked = true
	c.passed = c.spec.StartupProbe == nil || c.init && !c.sidecar
	c.started = c.passed
	c.ready = c.started && c.spec.ReadinessProbe == nil && (!c.init || c.sidecar)
	if c.ended() {
		c.started, c.ready = false, false
		return
	}
	c.startProbes(false)
}

// terminationMessage reads what a container left to say about its end.
func (a *Agent) terminationMessage(c *container, r runtime.Container) string {
	const limit, logLimit, logLines = 4096, 2048, 80
	text := tail(a.cfg.terminationPath(c.p.uid, c.name, r.ID.Attempt), limit)
	if text != "" || r.ExitCode == 0 || c.spec.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError {
		return text
	}
	var lines []string
	for line := range strings.Lines(tail(a.cfg.logPath(c.p.uid, c.name, r.ID.Attempt), 16<<10)) {
		// time stream P|F content
		f := strings.SplitN(line, " ", 4)
		if len(f) == 4 {
			lines = append(lines, f[3])
		}
	}
	if len(lines) > logLines {
		lines = lines[len(lines)-logLines:]
	}
	text = strings.Join(lines, "")
	return strings.ToValidUTF8(text[max(len(text)-logLimit, 0):], "?")
}

// tail reads the end of a file, at most n bytes.
func tail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	from := max(info.Size()-n, 0)
	data := make([]byte, info.Size()-from)
	read, _ := f.ReadAt(data, from)
	return strings.ToValidUTF8(string(data[:read]), "?")
}
