package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"github.com/fingerpost/fingerpost/node/runtime"
)

// protocols leaves out v5, which is for WebSockets between a client and the API
// server: the API server speaks SPDY to nodes.
func protocols() []string {
	return []string{
		remotecommand.StreamProtocolV4Name, remotecommand.StreamProtocolV3Name,
		remotecommand.StreamProtocolV2Name, remotecommand.StreamProtocolV1Name,
	}
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	c, ok := s.find(w, r, false)
	if !ok {
		return
	}
	opts, err := remotecommand.NewOptions(r)
	if err != nil {
		refuse(w, err)
		return
	}
	args := r.URL.Query()["command"]
	if len(args) == 0 {
		refuse(w, errors.New("no command is given"))
		return
	}
	remotecommand.ServeExec(w, r, s.remote(c), r.PathValue("pod"), r.PathValue("uid"), r.PathValue("container"), args,
		opts, s.cfg.IdleTimeout, remotecommand.DefaultStreamCreationTimeout, protocols())
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	c, ok := s.find(w, r, false)
	if !ok {
		return
	}
	opts, err := remotecommand.NewOptions(r)
	if err != nil {
		refuse(w, err)
		return
	}
	remotecommand.ServeAttach(w, r, s.remote(c), r.PathValue("pod"), r.PathValue("uid"), r.PathValue("container"),
		opts, s.cfg.IdleTimeout, remotecommand.DefaultStreamCreationTimeout, protocols())
}

// remote is one container for the streaming library, which names pods where we
// have looked it up already.
func (s *Server) remote(c Container) remote {
	return remote{ctx: s.ctx, streamer: s.cfg.Streamer, id: c.ID}
}

type remote struct {
	ctx      context.Context
	streamer runtime.Streamer
	id       runtime.ContainerID
}

var (
	_ remotecommand.Executor    = remote{}
	_ remotecommand.Attacher    = remote{}
	_ portforward.PortForwarder = forwarder{}
)

// ExecInContainer implements remotecommand.Executor.
func (r remote) ExecInContainer(ctx context.Context, _, _, _ string, cmd []string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, timeout time.Duration) error {
	ctx, stop := r.both(ctx)
	defer stop()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	code, err := r.streamer.Exec(ctx, r.id, runtime.ExecConfig{Args: cmd, Streams: streams(ctx, in, out, errOut, tty, resize)})
	if err != nil {
		return err
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
	}
	return nil
}

// AttachContainer implements remotecommand.Attacher.
func (r remote) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	ctx, stop := r.both(ctx)
	defer stop()
	return r.streamer.Attach(ctx, r.id, streams(ctx, in, out, errOut, tty, resize))
}

// both ends with the request and with the server.
func (r remote) both(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(r.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// streams turns the library's into the runtime's. A nil io.WriteCloser must
// become a nil interface.
func streams(ctx context.Context, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) runtime.Streams {
	s := runtime.Streams{Stdin: in, TTY: tty}
	if out != nil {
		s.Stdout = out
	}
	if errOut != nil {
		s.Stderr = errOut
	}
	if resize != nil {
		sizes := make(chan runtime.Size)
		s.Resize = sizes
		go func() {
			defer close(sizes)
			for {
				select {
				case z, ok := <-resize:
					if !ok {
						return
					}
					select {
					case sizes <- runtime.Size{Width: z.Width, Height: z.Height}:
					case <-ctx.Done():
						return
					}
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	return s
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	opts, err := portforward.NewV4Options(r)
	if err != nil {
		refuse(w, err)
		return
	}
	f := forwarder{s, r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("uid")}
	portforward.ServePortForward(w, r, f, f.pod, f.uid, opts, s.cfg.IdleTimeout, remotecommand.DefaultStreamCreationTimeout, portforward.SupportedProtocols)
}

type forwarder struct {
	s                   *Server
	namespace, pod, uid string
}

// PortForward implements portforward.PortForwarder.
func (f forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	if port < 1 || port > 65535 {
		return errors.New("port " + strconv.Itoa(int(port)) + " is not between 1 and 65535")
	}
	conn, err := f.s.cfg.Pods.Dial(ctx, f.namespace, f.pod, f.uid, uint16(port))
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(f.s.ctx, func() { _ = conn.Close() })
	defer stop()
	back := make(chan error, 1)
	go func() {
		_, err := io.Copy(stream, conn)
		back <- err
	}()
	_, err = io.Copy(conn, stream)
	if c, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
		_ = c.CloseWrite() // the pod may still have something to say
	} else {
		_ = conn.Close()
	}
	return errors.Join(err, <-back)
}
