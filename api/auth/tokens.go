package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Token is a bearer token, without what proves it.
type Token struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Role    Role      `json:"role"`
	Limits  Limits    `json:"limits,omitzero"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // zero: never
	Used    time.Time `json:"-"`                // last, since the daemon started; to the minute

	Certificate bool `json:"certificate,omitempty"` // it is proven by a client certificate
}

// kept is a token as it is in the file. Its secret part is 160 random bits, so
// one round of SHA-256 is as good as any.
type kept struct {
	Token
	Hash string `json:"hash,omitempty"` // of all of it, in hex; of a certificate there is none
}

// Tokens are the bearer tokens of a daemon. They are in a file, which has no
// secrets.
type Tokens struct {
	file string
	now  func() time.Time

	mu  sync.Mutex // guards all
	all []kept     // in the order in which they were made
}

// prefix lets scanners of repositories find a token that was committed.
const prefix = "buoy-token-"

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$`)

// OpenTokens reads the file, which need not be there.
func OpenTokens(file string) (*Tokens, error) {
	t := &Tokens{file: file, now: time.Now}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the tokens: %w", err)
	}
	if err := json.Unmarshal(raw, &t.all); err != nil {
		return nil, errs.E(errs.Invalid, "read the tokens in %s: %w; mend or remove it: without it no token is valid", file, err)
	}
	return t, nil
}

// Create makes a token of a name, a role, limits and an expiry, and says it this
// once. That of a certificate has no text: what is signed has to name its id.
func (t *Tokens) Create(want Token) (_ Token, text string, err error) {
	var made kept
	switch now := t.now(); {
	case !nameForm.MatchString(want.Name):
		return Token{}, "", errs.E(errs.Invalid, "a token's name is of 1 to 63 letters, digits, '.', '_', '@' and '-', and %q is not", want.Name)
	case want.Role < Viewer || want.Role > Admin:
		return Token{}, "", errs.E(errs.Invalid, "token %q: role is missing: want viewer, operator or admin", want.Name)
	case want.Role == Admin && want.Limits.Any():
		return Token{}, "", errs.E(errs.Invalid, "token %q: an admin cannot be limited to names; make it an operator", want.Name)
	case !want.Expires.IsZero() && !want.Expires.After(now):
		return Token{}, "", errs.E(errs.Invalid, "token %q: it would expire at %s, which is over", want.Name, want.Expires.Format(time.RFC3339))
	}
	if err := want.Limits.check(); err != nil {
		return Token{}, "", fmt.Errorf("token %q: %w", want.Name, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.ContainsFunc(t.all, func(k kept) bool { return k.Name == want.Name }) {
		return Token{}, "", errs.E(errs.Exists, "there is a token %q; remove it first, or take another name", want.Name)
	}
	want.ID = strings.ToLower(rand.Text()[:8])
	want.Created, want.Used = t.now().UTC().Truncate(time.Second), time.Time{}
	want.Expires = want.Expires.UTC().Truncate(time.Second)
	made = kept{Token: want}
	if !want.Certificate {
		text = prefix + want.ID + "-" + strings.ToLower(rand.Text()+rand.Text()[:6])
		made.Hash = hash(text)
	}
	if err := t.write(append(slices.Clone(t.all), made)); err != nil {
		return Token{}, "", err
	}
	return want, text, nil
}

// Remove ends a token, which has the name or the id; NotFound.
func (t *Tokens) Remove(key string) (Token, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.all, func(k kept) bool { return k.Name == key })
	if i < 0 {
		i = slices.IndexFunc(t.all, func(k kept) bool { return k.ID == key })
	}
	if i < 0 {
		return Token{}, errs.E(errs.NotFound, "there is no token %q", key)
	}
	gone := t.all[i].Token
	return gone, t.write(slices.Delete(slices.Clone(t.all), i, i+1))
}

// write makes all what there is, on the disk first.
func (t *Tokens) write(all []kept) error {
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(t.file, append(text, '\n'), 0o600); err != nil {
		return err
	}
	t.all = all
	return nil
}

// List is all tokens, also those that have expired.
func (t *Tokens) List() []Token {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Token, len(t.all))
	for i, k := range t.all {
		out[i] = k.Token
	}
	return out
}

// errUnknown is about what is none of ours, or was removed.
var errUnknown = errors.New("the token or certificate is not known here; it may have been removed")

// byText is whose token text is.
func (t *Tokens) byText(text string) (Caller, error) {
	id, _, _ := strings.Cut(strings.TrimPrefix(text, prefix), "-")
	sum := hash(text)
	return t.caller(func(k *kept) bool {
		return k.ID == id && !k.Certificate && subtle.ConstantTimeCompare([]byte(k.Hash), []byte(sum)) == 1
	})
}

// byCertificate is who has a certificate that names an id.
func (t *Tokens) byCertificate(id string) (Caller, error) {
	return t.caller(func(k *kept) bool { return k.ID == id && k.Certificate })
}

func (t *Tokens) caller(is func(*kept) bool) (Caller, error) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.all {
		k := &t.all[i]
		if !is(k) {
			continue
		}
		if !k.Expires.IsZero() && !now.Before(k.Expires) {
			return Caller{}, errs.E(errs.Invalid, "%s expired at %s", k.called(), k.Expires.Format(time.RFC3339))
		}
		k.Used = now.UTC().Truncate(time.Minute)
		return Caller{Name: k.called(), Role: k.Role, Limits: k.Limits, Proven: true}, nil
	}
	return Caller{}, errUnknown
}

func (t Token) called() string {
	if t.Certificate {
		return fmt.Sprintf("certificate %q", t.Name)
	}
	return fmt.Sprintf("token %q", t.Name)
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
