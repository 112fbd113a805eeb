package pack_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/flist/pack"
)

// FuzzWrite: whatever a file is, what is written of it is read again, or refused.
func FuzzWrite(f *testing.F) {
	f.Add("name", "target", uint32(unix.S_IFREG|0o4755), uint32(1), uint32(2), int64(1_600_000_000), uint16(3), uint64(0x501))
	f.Add("é \n|", "/", uint32(unix.S_IFLNK|0o777), uint32(0), uint32(1<<32-2), int64(-1), uint16(0), uint64(0))
	f.Add("\xff", "..", uint32(unix.S_IFCHR|0o600), uint32(65534), uint32(0), int64(1)<<33, uint16(0), unix.Mkdev(300, 70000))
	f.Fuzz(func(t *testing.T, name, target string, mode, uid, gid uint32, mtime int64, chunks uint16, dev uint64) {
		if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") ||
			target == "" || len(target) > 4000 || strings.Contains(target, "\x00") || mode>>16 != 0 || dev>>32 != 0 ||
			uid == 1<<32-1 || gid == 1<<32-1 {
			return // no file is like that
		}
		n := flist.Node{Name: name, Mode: mode, UID: uid, GID: gid, MTime: mtime, CTime: mtime}
		switch mode & unix.S_IFMT {
		case unix.S_IFREG:
			n.ChunkSize = chunk.Size
			for i := range chunks % 100 {
				ref, _ := chunk.XXTEA.Seal([]byte{byte(i)})
				n.Chunks, n.Size = append(n.Chunks, ref), int64(i)*chunk.Size+1
			}
		case unix.S_IFLNK:
			n.Target, n.Size = target, int64(len(target))
		case unix.S_IFCHR, unix.S_IFBLK:
			n.Rdev = dev
		case unix.S_IFDIR, unix.S_IFIFO, unix.S_IFSOCK:
		default:
			return
		}
		l := &flist.List{Era: flist.EraC, Nodes: []flist.Node{{Mode: unix.S_IFDIR | 0o755, First: 1, Count: 1}, n}}
		if n.Mode&unix.S_IFMT == unix.S_IFDIR {
			l.Nodes[1].First = 2
		}
		file := filepath.Join(t.TempDir(), "x.flist")
		must(t, pack.Write(t.Context(), file, l))
		got := open(t, file).Nodes[1]
		n.MTime = min(max(n.MTime, 0), 1<<32-1)
		n.CTime = n.MTime
		if d := cmp.Diff(n, got, cmpopts.IgnoreFields(flist.Node{}, "First", "ChunkSize")); d != "" {
			t.Error(d)
		}
	})
}
