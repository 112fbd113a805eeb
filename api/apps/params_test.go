package apps

import (
	"net/url"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestSince(t *testing.T) {
	now := time.Date(2024, 1, 15, 10, 30, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                          {},
		"1h":                        now.Add(-time.Hour),
		"90s":                       now.Add(-90 * time.Second),
		"1d":                        now.Add(-24 * time.Hour),
		"1.5d":                      now.Add(-36 * time.Hour),
		"2w":                        now.Add(-14 * 24 * time.Hour),
		"2024-01-15T08:00:00Z":      day,
		"2024-01-15T08:00:00.5Z":    day.Add(time.Second / 2),
		"2024-01-15T10:00:00+02:00": day,
		"2024-01-15T10:00:00 02:00": day, // a plus that was not escaped
		"2024-01-15T08:00:00":       day,
		"2024-01-15 08:00:00":       day,
		"2024-01-15T08:00":          day,
		"2024-01-15":                time.Date(2024, 1, 15, 0, 0, 0, 0, time.UTC),
		"1705305600":                day,
		"1705305600.25":             day.Add(time.Second / 4),
	} {
		if got, err := since(url.Values{"since": {text}}, now); err != nil || !got.Equal(want) {
			t.Errorf("since %q = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "-1h", "1x", "d", "-1d", "NaN", "nand", "1e30", "infd", "9999999w", "99999999h", "2024-13-01"} {
		if got, err := since(url.Values{"since": {text}}, now); err == nil {
			t.Errorf("since %q = %v", text, got)
		}
	}
}

func FuzzSince(f *testing.F) {
	for _, text := range []string{"", "1h", "1d", "2024-01-15T08:00:00Z", "1705305600.25", "2024-01-15T10:00:00 02:00", "1e9w", "NaNd"} {
		f.Add(text)
	}
	now := time.Date(2024, 1, 15, 10, 30, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		_, err := since(url.Values{"since": {text}}, now)
		if err != nil && errs.KindOf(err) != errs.Invalid {
			t.Errorf("since %q: %v", text, err)
		}
		if d, ok := parseDuration(text); ok && (d < 0 || d > 11*365*24*time.Hour) {
			t.Errorf("parseDuration(%q) = %v", text, d)
		}
	})
}

// FuzzBodies sends what nobody meant to every route that reads a body.
func FuzzBodies(f *testing.F) {
	paths := []struct{ method, path string }{
		{"POST", "/api/v1/apps/register"},
		{"POST", "/api/v1/apps/apply"},
		{"POST", "/api/v1/apps/plan"},
		{"POST", "/api/v1/apps/my-app/start"},
		{"POST", "/api/v1/apps/my-app/scale"},
		{"PUT", "/api/v1/apps/my-app/scaling"},
		{"POST", "/api/v1/apps/my-app/simulate"},
		{"PUT", "/api/v1/config"},
		{"POST", "/api/v1/apps/my-app/rollback"},
		{"POST", "/apps/my-app/policy"},
		{"POST", "/apps/my-app/simulateMetrics"},
		{"POST", "/api/v1/apps/rebalance"},
	}
	for i, body := range []string{
		nginxApp, "kind: App\n---\n{}", "[]", `{"replicas":3,"wait":false,"timeout":1e-9}`, `{"replicas":1e99}`, `{"mode":"auto","min_replicas":-1}`,
		`{"cpu_percent":1e308}`, `{"scaling":{"default_cooldown":300}}`, `{"revision":2}`, `{"policy":{"maxReplicas":9}}`, `{"cpuPercent":90}`, "null",
	} {
		f.Add(uint8(i), body)
	}
	f.Fuzz(func(t *testing.T, n uint8, body string) {
		to := paths[int(n)%len(paths)]
		if len(body) > 4096 {
			return
		}
		fx := running(t, 1)
		w := fx.ask(to.method, to.path, body)
		if w.Code == 500 || w.Code < 200 {
			t.Errorf("%s %s %q = %d %s", to.method, to.path, body, w.Code, w.Body)
		}
		if w.Code >= 400 {
			checkError(t, w)
		}
	})
}
