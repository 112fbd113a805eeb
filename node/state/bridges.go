package state

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

const bridgesTables = `
CREATE TABLE bridges (
	name    TEXT PRIMARY KEY,
	spec    TEXT NOT NULL,
	created INTEGER NOT NULL
) STRICT;
CREATE TABLE leases (
	bridge   TEXT NOT NULL,
	address  TEXT NOT NULL,
	client   TEXT NOT NULL,
	mac      TEXT NOT NULL,
	hostname TEXT NOT NULL,
	expires  INTEGER NOT NULL,
	PRIMARY KEY (bridge, address)
) STRICT;
`

// Bridge is a bridge that was made through the API.
type Bridge struct {
	Name    string
	Spec    []byte // JSON; opaque here
	Created time.Time
}

// Lease is an address that the DHCP server of a bridge has given.
type Lease struct {
	Bridge   string
	Addr     netip.Addr
	Client   string
	MAC      string
	Hostname string
	Expires  time.Time
}

// PutBridge writes a bridge, new or not. It is durable when PutBridge returns.
func (d *DB) PutBridge(ctx context.Context, b Bridge) error {
	return d.apply(ctx, `INSERT INTO bridges VALUES (?,?,?) ON CONFLICT (name) DO UPDATE SET spec=excluded.spec`,
		b.Name, string(b.Spec), stamp(b.Created))
}

// DeleteBridge forgets a bridge with its leases. Forgetting what is not there is fine.
func (d *DB) DeleteBridge(ctx context.Context, name string) error {
	if err := d.apply(ctx, "DELETE FROM leases WHERE bridge = ?", name); err != nil {
		return err
	}
	return d.apply(ctx, "DELETE FROM bridges WHERE name = ?", name)
}

// Bridges are all bridges, in the order of their creation.
func (d *DB) Bridges(ctx context.Context) (all []Bridge, err error) {
	rows, err := d.db.QueryContext(ctx, "SELECT name, spec, created FROM bridges ORDER BY created, name")
	if err != nil {
		return nil, fmt.Errorf("read the node's state: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var b Bridge
		var spec string
		var created int64
		if err := rows.Scan(&b.Name, &spec, &created); err != nil {
			return nil, fmt.Errorf("read the node's state: %w", err)
		}
		b.Spec, b.Created = []byte(spec), moment(created)
		all = append(all, b)
	}
	return all, rows.Err()
}

// PutLease writes a lease in place of what was known of its address.
func (d *DB) PutLease(ctx context.Context, l Lease) error {
	return d.apply(ctx, "INSERT OR REPLACE INTO leases VALUES (?,?,?,?,?,?)", l.Bridge, l.Addr.String(), l.Client, l.MAC, l.Hostname, stamp(l.Expires))
}

// DeleteLease forgets an address.
func (d *DB) DeleteLease(ctx context.Context, bridge string, addr netip.Addr) error {
	return d.apply(ctx, "DELETE FROM leases WHERE bridge = ? AND address = ?", bridge, addr.String())
}

// Leases are those of a bridge.
func (d *DB) Leases(ctx context.Context, bridge string) (all []Lease, err error) {
	rows, err := d.db.QueryContext(ctx, "SELECT address, client, mac, hostname, expires FROM leases WHERE bridge = ? ORDER BY address", bridge)
	if err != nil {
		return nil, fmt.Errorf("read the node's state: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		l := Lease{Bridge: bridge}
		var addr string
		var expires int64
		if err := rows.Scan(&addr, &l.Client, &l.MAC, &l.Hostname, &expires); err != nil {
			return nil, fmt.Errorf("read the node's state: %w", err)
		}
		if l.Addr, err = netip.ParseAddr(addr); err != nil {
			return nil, fmt.Errorf("read the node's state: lease of %q: %w", addr, err)
		}
		l.Expires = moment(expires)
		all = append(all, l)
	}
	return all, rows.Err()
}
