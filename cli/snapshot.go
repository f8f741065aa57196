package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fingerpost/fingerpost/store"
)

func (a *App) snapshotCmd() *cobra.Command {
	var dataDir, ca, cert, key string
	var endpoints []string
	cmd := &cobra.Command{Use: "snapshot", Short: "Save or restore the whole state"}
	cmd.PersistentFlags().StringVar(&dataDir, "data-dir", DataDir(), "data directory of the server")

	save := &cobra.Command{
		Use:   "save FILE",
		Short: "Write the state of a running server to a file (it holds Secrets: mode 0600)",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			st := store.Embedded(dataDir)
			if len(endpoints) > 0 {
				var err error
				if st, err = store.Open(cmd.Context(), store.Config{Endpoints: endpoints, CAFile: ca, CertFile: cert, KeyFile: key}); err != nil {
					return exitWith(ExitUnavailable, "%w", err)
				}
				defer st.Close()
			} else if _, err := os.Stat(dataDir); err != nil {
				return exitWith(ExitNotFound, "there is no data directory %s; name it with --data-dir", dataDir)
			}
			if err := st.SaveSnapshot(cmd.Context(), args[0]); err != nil {
				return err
			}
			_, err := fmt.Fprintf(a.Out, "saved %s\n", args[0])
			return err
		},
	}
	save.Flags().StringSliceVar(&endpoints, "etcd-endpoints", nil, "URLs of an external etcd")
	save.Flags().StringVar(&ca, "etcd-cafile", "", "CA of the external etcd, PEM")
	save.Flags().StringVar(&cert, "etcd-certfile", "", "client certificate for the external etcd, PEM")
	save.Flags().StringVar(&key, "etcd-keyfile", "", "key of the client certificate, PEM")

	restore := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make the data directory's state that of a file; the server must be stopped",
		Long: `Make the data directory's state that of a file. The server must be stopped.
What was there is kept beside it. Clients that watch see that their state is
outdated and read everything anew.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			kept, err := store.RestoreSnapshot(args[0], dataDir, time.Now())
			if err != nil {
				return err
			}
			if kept != "" {
				fmt.Fprintf(a.Err, "the old state is kept in %s\n", kept)
			}
			_, err = fmt.Fprintf(a.Out, "restored %s\n", dataDir)
			return err
		},
	}
	cmd.AddCommand(save, restore)
	return cmd
}
