package signature

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Verdict is what a rule says.
type Verdict string

// The verdicts.
const (
	Accept Verdict = "accept"
	Reject Verdict = "reject"
	Signed Verdict = "signed" // accepted with a signature by one of the rule's keys
)

// Rule is for all images whose name begins with Prefix.
type Rule struct {
	Prefix string
	Do     Verdict
	Keys   []Key
	// SignedAs replaces Prefix in the name that signatures are for: of images that were copied after they were signed.
	SignedAs string
}

// identity is the repository that a signature has to name.
func (r Rule) identity(repository string) string {
	if r.SignedAs == "" {
		return repository
	}
	return r.SignedAs + strings.TrimPrefix(repository, r.Prefix)
}

// Trusts says whether a key is among the rule's.
func (r Rule) Trusts(id string) bool {
	for _, k := range r.Keys {
		if k.ID == id {
			return true
		}
	}
	return false
}

// Policy is a set of rules.
type Policy struct {
	rules []Rule // the default is one with an empty prefix
}

// Rule is the one for an image: that with the longest prefix. A prefix ends where a part of the name does.
func (p *Policy) Rule(name string) Rule {
	best := -1
	for i, r := range p.rules {
		if covers(r.Prefix, name) && (best < 0 || len(r.Prefix) > len(p.rules[best].Prefix)) {
			best = i
		}
	}
	return p.rules[best] // the default covers everything
}

func covers(prefix, name string) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	return ok && (prefix == "" || rest == "" || rest[0] == '/' || strings.HasSuffix(prefix, "/") || strings.HasSuffix(prefix, ":"))
}

// maxPolicy is far more than anybody writes.
const maxPolicy = 1 << 20

// file is the policy as it is written.
type file struct {
	Default Verdict `json:"default"`
	Rules   []struct {
		Prefix   string   `json:"prefix"`
		Do       Verdict  `json:"do"`
		Keys     []string `json:"keys"`
		SignedAs string   `json:"signedAs"`
	} `json:"rules"`
}

// Parse reads a policy. Keys are PEM, or files, relative to dir.
func Parse(data []byte, dir string) (*Policy, error) {
	if len(data) > maxPolicy {
		return nil, errs.E(errs.Invalid, "image policy has more than 1 MiB")
	}
	var f file
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, errs.E(errs.Invalid, "image policy: %w", err)
	}
	if d.More() {
		return nil, errs.E(errs.Invalid, "image policy: there is something behind the end of it")
	}
	if f.Default != Accept && f.Default != Reject {
		return nil, errs.E(errs.Invalid, "image policy: default is %q, not %q or %q", f.Default, Accept, Reject)
	}
	p := &Policy{rules: []Rule{{Do: f.Default}}}
	seen := map[string]bool{}
	for _, r := range f.Rules {
		rule := Rule{Prefix: r.Prefix, Do: r.Do, SignedAs: r.SignedAs}
		switch {
		case r.Prefix == "":
			return nil, errs.E(errs.Invalid, "image policy: a rule has no prefix; what is for all images is the default")
		case seen[r.Prefix]:
			return nil, errs.E(errs.Invalid, "image policy: there are two rules for %q", r.Prefix)
		case r.Do != Accept && r.Do != Reject && r.Do != Signed:
			return nil, errs.E(errs.Invalid, "image policy: the rule for %q says %q, not accept, reject or signed", r.Prefix, r.Do)
		case (r.Do == Signed) != (len(r.Keys) > 0):
			return nil, errs.E(errs.Invalid, "image policy: the rule for %q: keys and \"signed\" belong together", r.Prefix)
		case r.Do != Signed && r.SignedAs != "":
			return nil, errs.E(errs.Invalid, "image policy: the rule for %q: signedAs belongs to \"signed\"", r.Prefix)
		}
		seen[r.Prefix] = true
		for _, text := range r.Keys {
			key, err := readKey(text, dir)
			if err != nil {
				return nil, errs.E(errs.Invalid, "image policy: a key for %q: %w", r.Prefix, err)
			}
			rule.Keys = append(rule.Keys, key)
		}
		p.rules = append(p.rules, rule)
	}
	return p, nil
}

func readKey(text, dir string) (Key, error) {
	if strings.HasPrefix(strings.TrimSpace(text), "-----BEGIN") {
		return ParseKey([]byte(text))
	}
	if !filepath.IsAbs(text) {
		text = filepath.Join(dir, text)
	}
	data, err := os.ReadFile(text)
	if err != nil {
		return Key{}, err
	}
	return ParseKey(data)
}
