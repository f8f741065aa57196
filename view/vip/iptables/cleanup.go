package iptables

import (
	"errors"
	"fmt"
	"hash/maphash"
)

// Cleanup removes everything that the driver, or kube-proxy in its iptables
// mode, left in the kernel, in both families and, with flavour auto, in both
// flavours. Everybody else's rules stay as they are.
func Cleanup(cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	flavours := []string{cfg.Flavour}
	if cfg.Flavour == Auto {
		flavours = []string{Legacy, NFT}
	}
	var errs []error
	for _, flavour := range flavours {
		for _, v6 := range []bool{false, true} {
			t, err := find(flavour, v6)
			if err != nil {
				continue // no program, no rules by it
			}
			if err := t.clean(); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("iptables: clean up: %w", err)
	}
	return nil
}

// clean removes our chains from the tables that exist.
func (t tool) clean() error {
	if t.count() == 0 {
		return nil // asking for a table by name may make it
	}
	was, err := t.save(maphash.MakeSeed())
	if err != nil {
		return err
	}
	var work []string
	for _, table := range []string{tableNAT, tableFilter} {
		if s := was.tables[table]; s != nil && (len(s.chains) > 0 || len(s.into) > 0) {
			work = append(work, table)
		}
	}
	if len(work) == 0 {
		return nil
	}
	return t.restore(func(w *lines) {
		for _, table := range work {
			was.tables[table].clear(table, w)
		}
	})
}
