package xz

import "encoding/binary"

// Branch filters made the targets of calls absolute, which compresses better; undoBranch makes them relative again.
// The transforms are those of the .xz format (xz-embedded, xz_dec_bcj.c, 0BSD).
const (
	branchX86   = 0x04
	branchARM   = 0x07
	branchThumb = 0x08
	branchARM64 = 0x0a
)

func knownBranch(id uint64) bool {
	return id == branchX86 || id == branchARM || id == branchThumb || id == branchARM64
}

func undoBranch(id uint64, b []byte) {
	switch id {
	case branchX86:
		undoX86(b)
	case branchARM:
		for i := 0; i+4 <= len(b); i += 4 {
			if b[i+3] == 0xeb {
				v := binary.LittleEndian.Uint32(b[i:]) & 0xffffff
				v = (v<<2 - uint32(i) - 8) >> 2
				binary.LittleEndian.PutUint32(b[i:], v&0xffffff|0xeb000000)
			}
		}
	case branchThumb:
		undoThumb(b)
	case branchARM64:
		undoARM64(b)
	}
}

func undoThumb(b []byte) {
	for i := 0; i+4 <= len(b); i += 2 {
		if b[i+1]&0xf8 != 0xf0 || b[i+3]&0xf8 != 0xf8 {
			continue
		}
		v := uint32(b[i+1]&7)<<19 | uint32(b[i])<<11 | uint32(b[i+3]&7)<<8 | uint32(b[i+2])
		v = (v<<1 - uint32(i) - 4) >> 1
		b[i+1] = 0xf0 | byte(v>>19)&7
		b[i] = byte(v >> 11)
		b[i+3] = 0xf8 | byte(v>>8)&7
		b[i+2] = byte(v)
		i += 2
	}
}

func undoARM64(b []byte) {
	for i := 0; i+4 <= len(b); i += 4 {
		ins := binary.LittleEndian.Uint32(b[i:])
		switch {
		case ins>>26 == 0x25: // BL
			ins = 0x94000000 | (ins-uint32(i)>>2)&0x03ffffff
		case ins&0x9f000000 == 0x90000000: // ADRP
			v := ins>>29&3 | ins>>3&0x1ffffc
			if (v+0x020000)&0x1c0000 != 0 {
				continue
			}
			v -= uint32(i) >> 12
			ins = ins&0x9000001f | v&3<<29 | v&0x03fffc<<3 | -(v&0x020000)&0xe00000
		default:
			continue
		}
		binary.LittleEndian.PutUint32(b[i:], ins)
	}
}

func undoX86(b []byte) {
	allowed := [8]bool{true, true, true, false, true}
	bits := [8]uint32{0, 1, 2, 2, 3, 3, 3, 3}
	edge := func(c byte) bool { return c == 0 || c == 0xff }
	prev, mask := -1, uint32(0)
	for i := 0; i+4 < len(b); i++ {
		if b[i]&0xfe != 0xe8 {
			continue
		}
		if gap := i - prev; gap > 3 {
			mask = 0
		} else if mask = mask << (gap - 1) & 7; mask != 0 {
			if !allowed[mask] || edge(b[i+4-int(bits[mask])]) {
				prev = i
				mask = mask<<1 | 1
				continue
			}
		}
		prev = i
		if !edge(b[i+4]) {
			mask = mask<<1 | 1
			continue
		}
		src, dest := binary.LittleEndian.Uint32(b[i+1:]), uint32(0)
		for {
			dest = src - uint32(i) - 5
			j := bits[mask] * 8
			if mask == 0 || !edge(byte(dest>>(24-j))) {
				break
			}
			src = dest ^ (1<<(32-j) - 1)
		}
		dest &= 0x01ffffff
		binary.LittleEndian.PutUint32(b[i+1:], dest|-(dest&0x01000000))
		i += 4
	}
}
