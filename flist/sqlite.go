package flist

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/buoy-edge/buoy/internal/errs"
)

const (
	maxCell   = 256 << 20 // bytes of one value: a directory of a million files
	maxTables = 64        // tables and indexes; the formats have fewer than ten
)

var magicSQLite = []byte("SQLite format 3\x00")

// database is an SQLite file from a stranger, in memory. What can be asked of it is tables, row by row: a view or a
// generated column would be a program of the stranger's.
type database struct {
	db     *sql.DB
	conn   *sql.Conn
	tables map[string]bool
	size   int
}

// openSQLite reads content, which it may change. Nothing is left behind, whatever happens.
func openSQLite(ctx context.Context, content []byte) (_ *database, err error) {
	if len(content) < 100 || !bytes.HasPrefix(content, magicSQLite) {
		return nil, errs.E(errs.Invalid, "it is no SQLite file")
	}
	page := int(binary.BigEndian.Uint16(content[16:]))
	if page == 1 {
		page = 65536
	}
	if page < 512 || len(content)%page != 0 {
		return nil, errs.E(errs.Invalid, "it is an SQLite file whose end is missing")
	}
	content[18], content[19] = 1, 1 // no write-ahead log: there is no file for one, and what is in the main file is whole
	db, err := sql.Open("sqlite", ":memory:?_defensive=1")
	if err != nil {
		return nil, fmt.Errorf("open SQLite: %w", err)
	}
	d := &database{db: db, size: len(content)}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.conn, err = db.Conn(ctx); err != nil {
		return nil, fmt.Errorf("open SQLite: %w", err)
	}
	err = d.conn.Raw(func(c any) error { return c.(interface{ Deserialize([]byte) error }).Deserialize(content) })
	if err != nil {
		return nil, errs.E(errs.Invalid, "it is a broken SQLite file: %s", brief(err))
	}
	for id, n := range map[int]int{
		sqlite3.SQLITE_LIMIT_LENGTH: maxCell, sqlite3.SQLITE_LIMIT_SQL_LENGTH: 10_000, sqlite3.SQLITE_LIMIT_COLUMN: 100,
		sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 20, sqlite3.SQLITE_LIMIT_ATTACHED: 0,
	} {
		if _, err := sqlite.Limit(d.conn, id, n); err != nil {
			return nil, fmt.Errorf("open SQLite: %w", err)
		}
	}
	for _, p := range []string{"trusted_schema=0", "query_only=1", "cell_size_check=1", "mmap_size=0", "temp_store=2"} {
		if _, err := d.conn.ExecContext(ctx, "PRAGMA "+p); err != nil {
			return nil, d.broken(ctx, err)
		}
	}
	return d, d.schema(ctx)
}

func (d *database) close() error {
	var err error
	if d.conn != nil {
		err = d.conn.Close()
	}
	return errors.Join(err, d.db.Close())
}

// schema lists the tables and refuses everything that is neither a plain table nor an index.
func (d *database) schema(ctx context.Context) error {
	d.tables = map[string]bool{}
	n := 0
	return d.query(ctx, "SELECT type, name, sql FROM sqlite_schema", func(row []driver.Value) error {
		kind, name, def := text(row[0]), text(row[1]), strings.ToUpper(text(row[2]))
		if n++; n > maxTables {
			return errs.E(errs.Invalid, "its database has more than %d tables", maxTables)
		}
		switch {
		case kind == "index" && (def == "" || strings.HasPrefix(def, "CREATE INDEX") || strings.HasPrefix(def, "CREATE UNIQUE INDEX")):
		case kind == "table" && strings.HasPrefix(def, "CREATE TABLE") && !strings.Contains(def, "WITHOUT ROWID"):
			d.tables[name] = true
		default:
			return errs.E(errs.Invalid, "its database has a %s %.40q, which flists have not", kind, name)
		}
		return nil
	})
}

// scan calls f with the columns of each row, in the order in which rows were added. A blob belongs to f.
func (d *database) scan(ctx context.Context, table, columns string, f func([]driver.Value) error) error {
	odd := ""
	err := d.query(ctx, "SELECT name FROM pragma_table_xinfo('"+table+"') WHERE hidden <> 0 OR lower(name) = 'rowid'", func(row []driver.Value) error {
		odd = text(row[0])
		return nil
	})
	if err != nil {
		return err
	}
	if odd != "" {
		return errs.E(errs.Invalid, "column %.40q of its table %s is not plain data", odd, table)
	}
	return d.query(ctx, "SELECT "+columns+" FROM main."+table+" NOT INDEXED ORDER BY rowid", f)
}

// query gives rows as the driver has them: database/sql would copy each value once more. Together they may not be longer
// than the file: pages that several rows share would be read again and again.
func (d *database) query(ctx context.Context, query string, f func([]driver.Value) error) error {
	return d.conn.Raw(func(c any) (err error) {
		rows, err := c.(driver.QueryerContext).QueryContext(ctx, query, nil)
		if err != nil {
			return d.broken(ctx, err)
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		row := make([]driver.Value, len(rows.Columns()))
		for total := 0; ; {
			if err := rows.Next(row); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return d.broken(ctx, err)
			}
			for _, v := range row {
				total += 1 + length(v)
			}
			if total > d.size {
				return errs.E(errs.Invalid, "its database has more in it than fits into the file")
			}
			if err := f(row); err != nil {
				return err
			}
		}
	})
}

func (d *database) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errs.E(errs.Invalid, "its database is broken: %s", brief(err))
}

// brief is the error of a parser, which may have lines, and names from the file in it, as a part of a sentence.
func brief(err error) string {
	const most = 200
	s := strings.ToValidUTF8(strings.Join(strings.Fields(err.Error()), " "), "?")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

func length(v driver.Value) int {
	switch v := v.(type) {
	case string:
		return len(v)
	case []byte:
		return len(v)
	}
	return 0
}

// text is a text or blob, "" if it is neither.
func text(v driver.Value) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	}
	return ""
}
