package manual

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPage(t *testing.T) {
	p := New("buoy-x", 8, "v1", `says "a"`)
	p.Section(`A "B"`)
	p.Text("one\n.two\n\n  as it is\n  'c\\d'\n")
	p.Subsection("more")
	p.Item("--flag X", "a flag-\nlike thing")
	want := `.TH BUOY-X 8 "" "buoy v1"
.SH "NAME"
buoy\-x \- says "a"
.SH "A \(dqB\(dq"
.PP
one
\&.two
.PP
.nf
  as it is
  'c\ed'
.fi
.SS "more"
.TP
\fB\-\-flag X\fR
a flag\- like thing
`
	if diff := cmp.Diff(want, p.String()); diff != "" {
		t.Error(diff)
	}
}
