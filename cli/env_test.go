package cli

import (
	"bytes"
	"testing"
)

func TestEnvFormats(t *testing.T) {
	vars := []string{"A=tcp://10.0.0.1:80", "B=it's", "C="}
	for syntax, want := range map[string]string{
		"shell":  "export A='tcp://10.0.0.1:80'\nexport B='it'\\''s'\nexport C=''\n",
		"docker": "A=tcp://10.0.0.1:80\nB=it's\nC=\n",
		"json":   "{\n  \"A\": \"tcp://10.0.0.1:80\",\n  \"B\": \"it's\",\n  \"C\": \"\"\n}\n",
	} {
		var out bytes.Buffer
		if err := envFormats[syntax](&out, vars); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("%s: got %q, want %q", syntax, out.String(), want)
		}
	}
}
