package webhooks

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/internal/egress"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/events"
)

// Hook is a receiver of events, as it is wanted.
type Hook struct {
	Name       string   `json:"name"`
	URL        string   `json:"url"`
	Types      []string `json:"types,omitempty"`      // types or kinds of events; none: all
	Containers []string `json:"containers,omitempty"` // none: all
	Images     []string `json:"images,omitempty"`     // as the log has them; none: all
	Secret     string   `json:"secret"`               // what deliveries are signed with
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

const (
	maxURL = 2048
	// A secret has 128 bits at least, if it is of hexadecimal digits alone.
	minSecret, maxSecret = 32, 256
	// secretPrefix is that of a secret in base64, as standardwebhooks.com has them.
	secretPrefix = "whsec_"
)

// NewSecret makes a secret.
func NewSecret() string {
	var key [32]byte
	rand.Read(key[:]) // never fails
	return secretPrefix + base64.StdEncoding.EncodeToString(key[:])
}

// Validate says what is wrong with a hook.
func (h *Hook) Validate(rules egress.Rules) error {
	if len(h.Name) > 63 || !namePattern.MatchString(h.Name) {
		return errs.E(errs.Invalid, "webhook %q: a name has 1 to 63 letters, digits, '.', '_' and '-', and begins with a letter or digit", h.Name)
	}
	u, err := url.Parse(h.URL)
	if err != nil || len(h.URL) > maxURL {
		return errs.E(errs.Invalid, "webhook %s: its url is none, or has more than %d bytes", h.Name, maxURL) // err has what may be a password
	}
	err = egress.CheckURL(u)
	if addr, perr := netip.ParseAddr(u.Hostname()); err == nil && perr == nil {
		err = rules.May(addr)
	}
	if err != nil {
		return fmt.Errorf("webhook %s: url: %w", h.Name, err)
	}
	if err := events.CheckTypes(h.Types); err != nil {
		return errs.E(errs.Invalid, "webhook %s: %w", h.Name, err)
	}
	if _, err := h.key(); err != nil {
		return errs.E(errs.Invalid, "webhook %s: secret: %w", h.Name, err)
	}
	return nil
}

// key is what the secret stands for.
func (h *Hook) key() ([]byte, error) {
	if len(h.Secret) < minSecret || len(h.Secret) > maxSecret {
		return nil, fmt.Errorf("it has %d characters; it must have %d to %d", len(h.Secret), minSecret, maxSecret)
	}
	text, ok := strings.CutPrefix(h.Secret, secretPrefix)
	if !ok {
		return []byte(h.Secret), nil
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("what follows %s is not base64", secretPrefix)
	}
	return key, nil
}

// sign is the signature of a delivery.
func (h *Hook) sign(id string, at time.Time, body []byte) string {
	key, err := h.key()
	if err != nil {
		panic("BUG: a webhook that was never validated: " + err.Error())
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.", id, at.Unix())
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
