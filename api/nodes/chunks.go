package nodes

import (
	"encoding/hex"
	"net/http"
	"strconv"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
)

// getChunk gives another node a chunk that this one has, as a chunk store
// would: compressed and encrypted under its own content. Who has no flist that
// names it learns nothing.
func (d *Dialect) getChunk(w http.ResponseWriter, r *http.Request) error {
	id, err := hex.DecodeString(api.Param(r, "chunk"))
	if err != nil || len(id) != 16 && len(id) != 32 {
		return errs.E(errs.Invalid, "%q is not the name of a chunk, 32 or 64 hexadecimal digits", api.Param(r, "chunk"))
	}
	stored, err := d.node.Chunk(r.Context(), hex.EncodeToString(id))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(stored)))
	_, _ = w.Write(stored) // fails only when the client has gone
	return nil
}
