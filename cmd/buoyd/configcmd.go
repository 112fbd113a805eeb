package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"strings"

	"go.yaml.in/yaml/v3"
)

// configure is "buoyd config": it looks and changes nothing.
func configure(args []string, stdout, stderr io.Writer) error {
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	if verb == "reference" {
		_, err := stdout.Write(reference())
		return err
	}
	if verb != "check" && verb != "show" {
		return errors.New("config takes check, show or reference")
	}
	cfg, err := parse(args, stderr)
	if err == nil {
		err = cfg.located(cfg.fleet.check())
	}
	if err != nil {
		return err
	}
	if verb == "show" {
		return cfg.show(stdout)
	}
	what := "the command line"
	if len(cfg.files) > 0 {
		what = strings.Join(cfg.files, ", ")
	}
	_, err = fmt.Fprintf(stdout, "%s: well\n", what)
	return err
}

// show writes what is in force, and since where, as a configuration file.
func (c *config) show(w io.Writer) error {
	given := c.given()
	doc := yaml.Node{Kind: yaml.MappingNode}
	c.keys(func(_ string, f *flag.Flag) {
		key := yaml.Node{Kind: yaml.ScalarNode, Value: f.Name}
		value := yaml.Node{Kind: yaml.ScalarNode, Value: withoutPassword(f.Value.String())}
		if r, ok := f.Value.(repeated); ok {
			value = yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
			for _, text := range r.Texts() {
				value.Content = append(value.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: withoutPassword(text)})
			}
			if len(value.Content) == 0 {
				return
			}
		} else if value.Value == "" {
			return
		}
		switch at := c.from[f.Name]; {
		case at != "":
			value.LineComment = at
		case given[f.Name]:
			value.LineComment = "command line"
		default:
			value.LineComment = "default"
		}
		doc.Content = append(doc.Content, &key, &value)
	})
	text, err := yaml.Marshal(&doc)
	if err == nil {
		_, err = w.Write(append(bytes.TrimSpace(text), '\n'))
	}
	return err
}

// withoutPassword hides the password of a URL.
func withoutPassword(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.User == nil {
		return s
	}
	return u.Redacted()
}

// keys are the flags that are keys of the configuration file, by section.
func (c *config) keys(f func(section string, key *flag.Flag)) {
	for _, s := range new(config).sections() {
		of := flag.NewFlagSet("", flag.ContinueOnError)
		s.register(of)
		of.VisitAll(func(like *flag.Flag) { f(s.title, c.flags.Lookup(like.Name)) })
	}
}

const referenceHead = `# Configuration of buoyd: /etc/buoy/buoyd.yaml, and conf.d/*.yaml beside it,
# whose keys replace those of this file. Flags of the command line replace both.
#
# Keys are buoyd's flags. A key that is commented out here has its default; where
# that is a word in capitals, there is none or the text says it. What may be
# repeated is a list: ["A", "B"]. Everybody on the machine may read this file: put a
# token into a file of its own and say "@FILE".
#
# "buoyd config check" says what is wrong with it, "buoyd config show" what is in
# force. A change takes a restart of buoyd, which containers do not notice.
`

// reference is a configuration file with every key and its default.
func reference() []byte {
	var b bytes.Buffer
	b.WriteString(referenceHead)
	last := ""
	newConfig().keys(func(section string, f *flag.Flag) {
		if section != last {
			fmt.Fprintf(&b, "\n## %s\n", section)
			last = section
		}
		name, usage := flag.UnquoteUsage(f)
		def := f.DefValue
		if def == "" {
			def = strings.ToUpper(name)
		}
		if _, ok := f.Value.(repeated); ok {
			def = fmt.Sprintf("[%q]", def)
		}
		fmt.Fprintf(&b, "\n# %s\n#%s: %s\n", usage, f.Name, def)
	})
	return b.Bytes()
}
