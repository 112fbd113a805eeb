package gpu

import "fmt"

// XID is an error that the driver of NVIDIA tells of a GPU.
type XID struct {
	UUID string
	Code int64
}

// fellOff is the XID of a GPU that is not on the bus any more.
const fellOff = 79

// xids are errors that people meet, in the words of NVIDIA's list.
var xids = map[int64]struct {
	text string
	app  bool // a program on the GPU is at fault, more likely than the GPU
}{
	13:      {"graphics engine exception", true},
	31:      {"memory page fault", true},
	32:      {"invalid or corrupted push buffer stream", false},
	38:      {"driver firmware error", false},
	43:      {"GPU stopped processing", true},
	45:      {"preemptive cleanup, due to previous errors", true},
	48:      {"double bit ECC error", false},
	61:      {"internal micro-controller breakpoint", false},
	62:      {"internal micro-controller halt", false},
	63:      {"ECC page retirement or row remapping recorded", false},
	64:      {"ECC page retirement or row remapper recording failure", false},
	68:      {"video processor exception", true},
	69:      {"graphics engine class error", true},
	74:      {"NVLink error", false},
	fellOff: {"GPU has fallen off the bus", false},
	92:      {"high single-bit ECC error rate", false},
	94:      {"contained ECC error", true},
	95:      {"uncontained ECC error", false},
	109:     {"context switch timeout", true},
	119:     {"GSP RPC timeout", false},
	120:     {"GSP error", false},
	121:     {"C2C link error", false},
	140:     {"unrecovered ECC error", false},
	154:     {"GPU recovery action changed", false},
}

// Application says whether a program on the GPU is more likely at fault than
// the GPU.
func (x XID) Application() bool { return xids[x.Code].app }

// String is what it means.
func (x XID) String() string {
	if known, ok := xids[x.Code]; ok {
		return fmt.Sprintf("XID %d: %s", x.Code, known.text)
	}
	return fmt.Sprintf("XID %d", x.Code)
}
