package server

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestServiceRangesAreKept, for a start without the server; nonsense in the
// file is nobody's range.
func TestServiceRangesAreKept(t *testing.T) {
	c := Config{StateDir: t.TempDir(), NodeName: "n1", Log: slog.New(slog.DiscardHandler)}
	if got := c.keptRanges(); got != nil {
		t.Errorf("%v from nowhere", got)
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:1::/112")}
	c.keepRanges(want)
	if got := c.keptRanges(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	other := c
	other.NodeName = "n2"
	if got := other.keptRanges(); got != nil {
		t.Errorf("%v of another node", got)
	}
	if err := os.WriteFile(filepath.Join(c.stateDir(), rangesFile), []byte("rubbish\n10.96.0.1/16\n10.97.0.0/16"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := c.keptRanges(); len(got) != 1 || got[0] != netip.MustParsePrefix("10.97.0.0/16") {
		t.Errorf("%v", got)
	}
	c.StateDir = ""
	c.keepRanges(want)
	if got := c.keptRanges(); got != nil {
		t.Errorf("%v without a directory", got)
	}
}
