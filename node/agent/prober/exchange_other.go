//go:build !linux

package prober

// exchange is a quick question that was asked; there are none here.
type exchange struct{ t *task }

func (q *Quick) begin() (*exchange, error) { return nil, nil }

func (x *exchange) look(*scratch) bool { return true }

func (x *exchange) wait() {}
