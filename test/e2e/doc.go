// Package e2e runs the whole system as people run it: the real binary, the
// real kubectl, real processes that are killed, real disks that fill up.
//
// The binary is that of $FINGERPOST_BIN and the kubectl that of $KUBECTL, as
// the Makefile sets them; what is not set is built. Each test process claims
// networks of its own within 127.0.0.0/8 (site_test.go), so any number of them
// run side by side, and none needs root. What only root can try is skipped,
// with the reason, for everybody else.
//
// Conversations with kubectl are the files of testdata/console: commands and
// their answers, as in a terminal (console_test.go). A report of a bug becomes
// a test by pasting it there.
package e2e
