package vm

import (
	"strings"
	"testing"
)

func TestProgramBringsItsLibraries(t *testing.T) {
	paths := map[string]bool{}
	for _, f := range Program(t, "/bin/sh") {
		paths[f.Path] = true
	}
	var libc, loader bool
	for p := range paths {
		libc = libc || strings.Contains(p, "/libc.so.")
		loader = loader || strings.Contains(p, "/ld-linux") || strings.Contains(p, "/ld-musl")
	}
	if !paths["/bin/sh"] || !libc || !loader {
		t.Errorf("a shell is %v", paths)
	}
}
