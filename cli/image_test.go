package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestImageCommands(t *testing.T) {
	t.Setenv("FINGERPOST_DATA", t.TempDir())
	dir := t.TempDir()
	program, archive := filepath.Join(dir, "shop"), filepath.Join(dir, "broken.tar")
	for name, mode := range map[string]os.FileMode{program: 0o755, archive: 0o644} {
		if err := os.WriteFile(name, []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		args []string
		code int
		want string // in stdout or chatter
	}{
		{[]string{"list"}, ExitOK, "no image"},
		{[]string{"list", "-o", "json"}, ExitOK, "[]"},
		{[]string{"map", "shop", program}, ExitOK, "docker.io/library/shop is " + program},
		{[]string{"map", "Shop", program}, ExitUsage, "invalid image name"},
		{[]string{"map", "shop", archive}, ExitError, "chmod +x"},
		{[]string{"map", "shop", filepath.Join(dir, "none")}, ExitNotFound, "no such file"},
		{[]string{"map", "shop"}, ExitUsage, "See 'fingerpost image map --help'"},
		{[]string{"list"}, ExitOK, "docker.io/library/shop   mapped   10 B"},
		{[]string{"load", archive}, ExitError, "no image archive"},
		{[]string{"load", "-"}, ExitError, "no image archive"},
		{[]string{"load", filepath.Join(dir, "none")}, ExitNotFound, "no such file"},
		{[]string{"pull", "127.0.0.1:1/none"}, ExitError, "cannot be reached"},
		{[]string{"remove", "shop"}, ExitOK, "removed shop"},
		{[]string{"remove", "shop"}, ExitNotFound, "not on this node"},
		{[]string{"frobnicate"}, ExitUsage, "no command"},
	} {
		var out bytes.Buffer
		code, chatter := invoke(t.Context(), &out, (*App).imageCmd, append([]string{"image"}, tc.args...)...)
		if code != tc.code || !strings.Contains(out.String()+chatter, tc.want) {
			t.Errorf("%v: code %d, want %d and %q:\n%s%s", tc.args, code, tc.code, tc.want, out.String(), chatter)
		}
		if tc.args[len(tc.args)-1] == "json" && !json.Valid(out.Bytes()) {
			t.Errorf("%v: %s", tc.args, out.String())
		}
	}
}

func TestDemoEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	// What a pod gives as args is the real program's, and must not disturb.
	if code, chatter := invoke(ctx, &out, (*App).demoCmd, "demo", "pause", "--", "-g", "daemon off;"); code != ExitOK {
		t.Error(code, chatter)
	}
	if code, chatter := invoke(ctx, &out, (*App).demoCmd, "demo", "nothing"); code != ExitError || !strings.Contains(chatter, "no program") {
		t.Error(code, chatter)
	}
}
