package catalog

import "context"

// View is a way out: something that shows the catalog to clients. Apply is
// called by one goroutine, in order, and must leave the view showing
// b.Snapshot; it owes work in proportion to b.Changes only. An error is for
// the log and for the view's own retry: the stream goes on.
type View interface {
	Apply(ctx context.Context, b Batch) error
}

// Follow feeds a view from the catalog until ctx ends. Errors of Apply go to
// onError, which may be nil.
func Follow(ctx context.Context, c *Catalog, v View, onError func(error)) error {
	s := c.Subscribe()
	defer s.Close()
	for {
		b, err := s.Next(ctx)
		if err != nil {
			return err
		}
		if err := v.Apply(ctx, b); err != nil && onError != nil {
			onError(err)
		}
	}
}
