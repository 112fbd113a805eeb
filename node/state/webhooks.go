package state

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const webhooksTable = `
CREATE TABLE webhooks (
	name     TEXT PRIMARY KEY,
	spec     TEXT NOT NULL,
	progress TEXT NOT NULL,
	created  INTEGER NOT NULL
) STRICT;
`

// Webhook is a receiver of events.
type Webhook struct {
	Name     string
	Spec     []byte // JSON, opaque here; empty: the daemon's configuration has it
	Progress []byte // JSON, opaque here: how far it has got
	Created  time.Time
}

// PutWebhook writes a webhook, new or not. It is durable when PutWebhook returns.
func (d *DB) PutWebhook(ctx context.Context, w Webhook) error {
	return d.apply(ctx, `INSERT INTO webhooks VALUES (?,?,?,?)
		ON CONFLICT (name) DO UPDATE SET spec=excluded.spec, progress=excluded.progress, created=excluded.created`,
		w.Name, string(w.Spec), string(w.Progress), stamp(w.Created))
}

// DeleteWebhook forgets a webhook. Forgetting what is not there is fine.
func (d *DB) DeleteWebhook(ctx context.Context, name string) error {
	return d.apply(ctx, "DELETE FROM webhooks WHERE name = ?", name)
}

// Webhooks are all webhooks, by name.
func (d *DB) Webhooks(ctx context.Context) (all []Webhook, err error) {
	rows, err := d.db.QueryContext(ctx, "SELECT name, spec, progress, created FROM webhooks ORDER BY name")
	if err != nil {
		return nil, fmt.Errorf("read the node's state: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var w Webhook
		var spec, progress string
		var created int64
		if err := rows.Scan(&w.Name, &spec, &progress, &created); err != nil {
			return nil, fmt.Errorf("read the node's state: %w", err)
		}
		w.Spec, w.Progress, w.Created = []byte(spec), []byte(progress), moment(created)
		all = append(all, w)
	}
	return all, rows.Err()
}
