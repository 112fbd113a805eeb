package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// defaultFile is the configuration of the machine's own instance.
const defaultFile = "/etc/buoy/buoyd.yaml"

// withDropins is a configuration file, if it is there, with those that a person
// or a package has put beside it. A key of a later one replaces that of an
// earlier one.
func withDropins(file string) ([]string, error) {
	more, err := filepath.Glob(filepath.Join(filepath.Dir(file), "conf.d", "*.yaml"))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return more, nil
	}
	return append([]string{file}, more...), nil
}

// setting is a key of a configuration file.
type setting struct {
	key   string
	texts []string // several where the flag may be repeated
	at    string   // FILE:LINE
}

// settings reads the files that the command line wants read.
func (c *config) settings() (all map[string]setting, files []string, err error) {
	given := c.given()
	switch {
	case c.file != "" && c.file != defaultFile:
		files = []string{c.file}
	case c.file == "" && (given["data"] || given["run"]):
		return nil, nil, nil // it is another instance than the machine's own
	default:
		if files, err = withDropins(defaultFile); err != nil {
			return nil, nil, err
		}
	}
	all = map[string]setting{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, fmt.Errorf("read the configuration: %w", err)
		}
		if err := c.readFile(file, raw, all); err != nil {
			return nil, nil, err
		}
	}
	return all, files, nil
}

// yamlLine is how the library says where in a file it stumbles.
var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// readFile reads a file into all. It judges keys and kinds; values are judged
// by their flags.
func (c *config) readFile(file string, raw []byte, all map[string]setting) error {
	var doc, second yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(raw))
	err := d.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil // all of it is comments
	}
	if err == nil {
		if err = d.Decode(&second); err == nil {
			return fmt.Errorf("%s:%d: a second document; all keys are in one", file, second.Line)
		}
	}
	if !errors.Is(err, io.EOF) {
		at := file
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil && m[1] != "" {
			at += ":" + m[1]
		}
		return fmt.Errorf("%s: %s", at, yamlLine.ReplaceAllString(err.Error(), ""))
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: it is not of lines like KEY: VALUE", file, root.Line)
	}
	here := map[string]string{}
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		at := fmt.Sprintf("%s:%d", file, key.Line)
		s, err := c.readKey(key.Value, value)
		if err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		if before := here[s.key]; before != "" {
			return fmt.Errorf("%s: %s is set in %s already", at, s.key, before)
		}
		s.at, here[s.key] = at, at
		all[s.key] = s
	}
	return nil
}

func (c *config) readKey(key string, value *yaml.Node) (s setting, err error) {
	f := c.flags.Lookup(key)
	if f == nil || f.Name == "config" || f.Name == "yes" {
		return s, fmt.Errorf("there is no key %q; keys are the flags of buoyd, without dashes", key)
	}
	items := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		if _, ok := f.Value.(repeated); !ok {
			return s, fmt.Errorf("%s takes one value, and this is a list", key)
		}
		items = value.Content
	}
	boolean, ok := f.Value.(interface{ IsBoolFlag() bool })
	wantBool := ok && boolean.IsBoolFlag()
	s.key = key
	for _, item := range items {
		tag := item.ShortTag()
		switch {
		case item.Kind != yaml.ScalarNode:
			return s, fmt.Errorf("%s takes %s, and this is something else", key, form(f))
		case tag == "!!null":
			return s, fmt.Errorf("%s has no value", key)
		case wantBool != (tag == "!!bool"):
			return s, fmt.Errorf("%s takes %s, not %s", key, form(f), item.Value)
		}
		s.texts = append(s.texts, item.Value)
	}
	return s, nil
}

// form is what a flag takes, as its description has it.
func form(f *flag.Flag) string {
	name, _ := flag.UnquoteUsage(f)
	if name == "" {
		return "true or false"
	}
	if _, ok := f.Value.(repeated); ok {
		return "a list of " + strings.ToUpper(name)
	}
	return strings.ToUpper(name)
}

// set sets a flag as a file has it.
func (c *config) set(s setting) error {
	for _, text := range s.texts {
		if err := c.flags.Set(s.key, text); err != nil {
			return fmt.Errorf("%s: %s %q: %w", s.at, s.key, text, err)
		}
	}
	c.from[s.key] = s.at
	return nil
}
