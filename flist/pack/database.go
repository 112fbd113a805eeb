package pack

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// database makes an SQLite file in memory. What it holds depends on nothing but the statements and their order: the page
// size is said, and there is one transaction.
type database struct {
	db   *sql.DB
	conn *sql.Conn
	tx   *sql.Tx
}

func newDatabase(ctx context.Context, schema string) (_ *database, err error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, fmt.Errorf("make SQLite file: %w", err)
	}
	d := &database{db: db}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make SQLite file: %w", err), d.close())
		}
	}()
	if d.conn, err = db.Conn(ctx); err != nil { // each connection has a memory of its own
		return nil, err
	}
	if _, err = d.conn.ExecContext(ctx, "PRAGMA page_size=4096"); err != nil {
		return nil, err
	}
	if d.tx, err = d.conn.BeginTx(ctx, nil); err != nil {
		return nil, err
	}
	_, err = d.tx.ExecContext(ctx, schema)
	return d, err
}

// insert adds the rows that each yields, until it yields an error.
func (d *database) insert(ctx context.Context, statement string, each func(add func(columns ...any) error) error) (err error) {
	s, err := d.tx.PrepareContext(ctx, statement)
	if err != nil {
		return fmt.Errorf("make SQLite file: %w", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return each(func(columns ...any) error {
		if _, err := s.ExecContext(ctx, columns...); err != nil {
			return fmt.Errorf("make SQLite file: %w", err)
		}
		return nil
	})
}

// bytes ends the transaction after the last statements, and is the file.
func (d *database) bytes(ctx context.Context, last string) (file []byte, err error) {
	if _, err = d.tx.ExecContext(ctx, last); err != nil {
		return nil, fmt.Errorf("make SQLite file: %w", err)
	}
	if err = d.tx.Commit(); err != nil {
		return nil, fmt.Errorf("make SQLite file: %w", err)
	}
	err = d.conn.Raw(func(c any) error {
		file, err = c.(interface{ Serialize() ([]byte, error) }).Serialize()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make SQLite file: %w", err)
	}
	return file, nil
}

func (d *database) close() error {
	if d.tx != nil {
		_ = d.tx.Rollback() // after a commit it has nothing to do
	}
	var err error
	if d.conn != nil {
		err = d.conn.Close()
	}
	return errors.Join(err, d.db.Close())
}
