package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/fingerpost/fingerpost/node/image"
)

// imageDir is where the node of a data directory keeps its images.
func imageDir(dataDir string) string { return filepath.Join(dataDir, "node", "images") }

func (a *App) imageCmd() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Say what image names mean on this machine: programs, directories, archives, registries",
		Long: `Say what image names mean to the pods of this machine's node.

A name can be mapped to a local program or directory, loaded from an archive,
or pulled from a registry; they are looked for in that order. For the images of
common tutorials (nginx, serve_hostname, defaultbackend, echoserver, mysql,
pause, busybox) small programs are built in. They are stand-ins of ours, not
those images: load, pull or map a name, and it means the real thing.

A node that runs sees changes at once, pods that run keep what they have.`,
		Example: `  fingerpost image map shop ./shop          # a program
  fingerpost image map shop:2 ./rootfs      # a root file system
  docker save app | fingerpost image load -
  fingerpost image pull nginx:1.27`,
	}
	cmd.PersistentFlags().StringVar(&dataDir, "data-dir", DataDir(), "data directory of the node")
	open := func() (*image.Store, error) {
		s, err := image.Open(image.Config{Dir: imageDir(dataDir)})
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("%w\nRun it as the user of the node, or name your own directory with --data-dir.", err)
		}
		return s, err
	}
	cmd.AddCommand(a.imageMapCmd(open), a.imageLoadCmd(open), a.imagePullCmd(open), a.imageListCmd(open), a.imageRemoveCmd(open))
	return cmd
}

type openImages func() (*image.Store, error)

// imageError gives errors of the store their exit codes.
func imageError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, image.ErrInvalidName):
		return exitWith(ExitUsage, "%w", err)
	case errors.Is(err, image.ErrNotFound), errors.Is(err, image.ErrNoSuchImage), errors.Is(err, fs.ErrNotExist):
		return exitWith(ExitNotFound, "%w", err)
	}
	return err
}

func (a *App) imageMapCmd(open openImages) *cobra.Command {
	return &cobra.Command{
		Use:   "map NAME PROGRAM|DIRECTORY",
		Short: "Let a name mean a program or a root file system of this machine",
		Long: `Let a name mean a program of this machine, which runs on the machine's own file
system, or a directory, which is the container's root file system. A file
image.json in the directory can say how it is started:

  {"Entrypoint": ["/bin/app"], "Cmd": ["--port=80"], "Env": ["A=b"], "WorkingDir": "/", "User": "1000"}

A name without a tag stands for every tag of it.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := open()
			if err != nil {
				return err
			}
			img, err := s.Map(cmd.Context(), args[0], args[1])
			if err != nil {
				return imageError(err)
			}
			_, err = fmt.Fprintf(a.Out, "%s is %s\n", img.Name, strings.TrimPrefix(img.ID, "local:"))
			return err
		},
	}
}

func (a *App) imageLoadCmd(open openImages) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "load FILE|DIRECTORY|-",
		Short: "Load images from an archive of 'docker save' or in the OCI layout",
		Long: `Load images from an archive of 'docker save' or in the OCI layout, compressed
with gzip or zstd or not at all; - reads it from standard input.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := open()
			if err != nil {
				return err
			}
			var images []image.Image
			if args[0] == "-" {
				images, err = s.Load(cmd.Context(), a.In, name)
			} else {
				images, err = s.LoadFile(cmd.Context(), args[0], name)
			}
			for _, img := range images {
				fmt.Fprintf(a.Out, "loaded %s\n", img.Name)
			}
			return imageError(err)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name for the image, if the archive holds one")
	return cmd
}

func (a *App) imagePullCmd(open openImages) *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "pull NAME",
		Short: "Pull an image from its registry",
		Long: `Pull an image from its registry, with the credentials that 'docker login' or
the like has stored for you, or those of --auth-file. Registries on localhost
may speak plain HTTP.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			auth := image.Auth{User: config == ""}
			if config != "" {
				data, err := os.ReadFile(config)
				if err != nil {
					return imageError(err)
				}
				auth.DockerConfigs = [][]byte{data}
			}
			s, err := open()
			if err != nil {
				return err
			}
			img, err := s.Pull(cmd.Context(), args[0], auth)
			if err != nil {
				return imageError(err)
			}
			_, err = fmt.Fprintf(a.Out, "pulled %s\n", img.Name)
			return err
		},
	}
	cmd.Flags().StringVar(&config, "auth-file", "", "credentials in the form of Docker's config.json")
	return cmd
}

func (a *App) imageListCmd(open openImages) *cobra.Command {
	var out format
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List what is mapped, loaded and pulled",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s, err := open()
			if err != nil {
				return err
			}
			images, err := s.List()
			if err != nil {
				return err
			}
			if out == formatJSON {
				if images == nil {
					images = []image.Image{}
				}
				e := json.NewEncoder(a.Out)
				e.SetIndent("", "  ")
				return e.Encode(images)
			}
			if len(images) == 0 {
				fmt.Fprintln(a.Err, "no image is mapped, loaded or pulled; what is built in works without")
				return nil
			}
			t := table{head: []string{"NAME", "SOURCE", "SIZE", "CREATED", "ID"}}
			for _, img := range images {
				created := ""
				if !img.Created.IsZero() {
					created = duration.HumanDuration(time.Since(img.Created)) + " ago"
				}
				id := img.ID
				if strings.HasPrefix(id, "sha256:") {
					id = id[:min(len(id), 19)]
				}
				t.row(img.Name, string(img.Source), byteSize(img.Size), created, id)
			}
			return t.write(a.Out)
		},
	}
	formatFlag(cmd, &out, formatTable, formatJSON)
	return cmd
}

// byteSize writes a size as people read it; nothing for none.
func byteSize(n int64) string {
	switch {
	case n == 0:
		return ""
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

func (a *App) imageRemoveCmd(open openImages) *cobra.Command {
	return &cobra.Command{
		Use:     "remove NAME…",
		Aliases: []string{"rm"},
		Short:   "Take names away; an image without a name is deleted",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := open()
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range args {
				if err := s.Remove(name); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintf(a.Out, "removed %s\n", name)
			}
			return imageError(errors.Join(errs...))
		},
	}
}
