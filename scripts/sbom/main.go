// Command sbom writes what programs are made of, as a CycloneDX bill of
// materials: the modules and the Go that each says it was built of, and static
// libraries, of which programs do not tell.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// library is linked into programs.
type library struct {
	name, version string
	debian        bool // version is that of Debian's source package
	programs      []string
}

func run(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("sbom", flag.ContinueOnError)
	version := flags.String("version", "dev", "`version` of buoy")
	epoch := flags.Int64("epoch", 0, "`seconds` since 1970, the time of the bill")
	var libraries []library
	flags.Func("library", "a static library: `NAME=VERSION=PROGRAM,…`; deb:VERSION is Debian's", func(s string) error {
		part := strings.Split(s, "=")
		if len(part) != 3 || slices.Contains(part, "") {
			return errors.New("want NAME=VERSION=PROGRAM,…")
		}
		v, debian := strings.CutPrefix(part[1], "deb:")
		libraries = append(libraries, library{part[0], v, debian, strings.Split(part[2], ",")})
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	b := newBill(*version, time.Unix(*epoch, 0).UTC())
	for _, file := range flags.Args() {
		if err := b.program(file); err != nil {
			return err
		}
	}
	for _, l := range libraries {
		if err := b.library(l); err != nil {
			return err
		}
	}
	return b.write(stdout)
}

// bill is a bill of materials in the making.
type bill struct {
	root       cdx.Component
	time       time.Time
	components map[string]cdx.Component // by reference
	uses       map[string][]string      // references, by that of who uses them
}

func newBill(version string, at time.Time) *bill {
	root := cdx.Component{BOMRef: "buoy", Type: cdx.ComponentTypeApplication, Name: "buoy", Version: version, PackageURL: "pkg:golang/github.com/buoy-edge/buoy@" + escaped(version)}
	return &bill{root: root, time: at, components: map[string]cdx.Component{}, uses: map[string][]string{}}
}

// escaped is a version as a package URL has it.
func escaped(s string) string {
	return strings.NewReplacer("%", "%25", "+", "%2B", "~", "%7E", ":", "%3A").Replace(s)
}

// add notes that by uses c, which others may use as well.
func (b *bill) add(by string, c cdx.Component) {
	b.components[c.BOMRef] = c
	if !slices.Contains(b.uses[by], c.BOMRef) {
		b.uses[by] = append(b.uses[by], c.BOMRef)
	}
}

// program adds a program, and what it says of itself if it is Go's.
func (b *bill) program(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	name := filepath.Base(file)
	b.add(b.root.BOMRef, cdx.Component{
		BOMRef: name, Type: cdx.ComponentTypeApplication, Name: name, Version: b.root.Version,
		Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
	})
	if _, ok := b.uses[name]; !ok {
		b.uses[name] = nil
	}
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return nil //nolint:nilerr // it is of C
	}
	b.module(name, "std", strings.TrimPrefix(info.GoVersion, "go"))
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		b.module(name, m.Path, m.Version)
	}
	return nil
}

func (b *bill) module(by, path, version string) {
	url := "pkg:golang/" + path + "@" + escaped(version)
	b.add(by, cdx.Component{BOMRef: url, Type: cdx.ComponentTypeLibrary, Name: path, Version: version, PackageURL: url})
}

func (b *bill) library(l library) error {
	url := "pkg:generic/" + l.name + "@" + escaped(l.version)
	if l.debian {
		url = "pkg:deb/debian/" + l.name + "@" + escaped(l.version) + "?arch=source"
	}
	for _, program := range l.programs {
		if _, ok := b.components[program]; !ok {
			return fmt.Errorf("library %s is said to be in %s, which is not among the programs", l.name, program)
		}
		b.add(program, cdx.Component{BOMRef: url, Type: cdx.ComponentTypeLibrary, Name: l.name, Version: l.version, PackageURL: url})
	}
	return nil
}

// write writes the same bytes for the same bill.
func (b *bill) write(w io.Writer) error {
	out := cdx.NewBOM()
	out.Metadata = &cdx.Metadata{Timestamp: b.time.Format(time.RFC3339), Component: &b.root}
	var components []cdx.Component
	for _, c := range b.components {
		components = append(components, c)
	}
	slices.SortFunc(components, func(x, y cdx.Component) int { return strings.Compare(x.BOMRef, y.BOMRef) })
	var graph []cdx.Dependency
	for by, refs := range b.uses {
		slices.Sort(refs)
		d := cdx.Dependency{Ref: by}
		if len(refs) > 0 {
			d.Dependencies = &refs
		}
		graph = append(graph, d)
	}
	slices.SortFunc(graph, func(x, y cdx.Dependency) int { return strings.Compare(x.Ref, y.Ref) })
	out.Components, out.Dependencies = &components, &graph
	return cdx.NewBOMEncoder(w, cdx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).EncodeVersion(out, cdx.SpecVersion1_6)
}
