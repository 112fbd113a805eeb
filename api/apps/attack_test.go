package apps

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/app"
)

// TestHostHoldsLog: a host that takes the question and says nothing keeps no
// one from the logs of others.
func TestHostHoldsLog(t *testing.T) {
	f := serve(t, func(c *Config) {
		read := c.Logs
		c.Logs = func(ctx context.Context, r app.Replica, q LogQuery, each func(LogLine) error) error {
			if r.Name() == "my-app-2" {
				<-ctx.Done()
				return nil
			}
			return read(ctx, r, q, each)
		}
	})
	f.d.logTime = 50 * time.Millisecond
	f.ask("POST", "/api/v1/apps/register", nginxApp)
	f.ask("POST", "/api/v1/apps/my-app/start", `{"replicas":2}`)
	f.logs.write("my-app-1", 0, "here")
	w := f.ask("GET", "/api/v1/apps/my-app/logs", "")
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"message":"here"`) || !strings.Contains(w.Body.String(), `"unavailable":[{"container":"my-app-2"`) {
		t.Errorf("logs = %d %s", w.Code, w.Body)
	}
}
