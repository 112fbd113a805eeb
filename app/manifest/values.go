package manifest

import (
	"encoding/json"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/internal/size"
)

// word is text that YAML may take for something else: 1000, 1.0, true.
type word string

func (w *word) decode(d *decoder, n *node, path string) {
	if !n.scalar() {
		d.mismatch(n, path, wantText)
		return
	}
	*w = word(n.text)
}

func (word) schema() schema {
	return schema{"type": []string{"string", "number", "boolean"}}
}

// words is a list of them.
type words []string

func (w *words) decode(d *decoder, n *node, path string) {
	if n.kind != list {
		d.mismatch(n, path, "a list of texts")
		return
	}
	*w = words{}
	for i, item := range n.items {
		var one word
		if item.kind == null {
			d.problem(index(path, i), "is empty")
			continue
		}
		one.decode(d, item, index(path, i))
		*w = append(*w, string(one))
	}
}

func (words) schema() schema {
	return schema{"type": "array", "items": word("").schema()}
}

// maxTime is the longest time that is understood, in seconds: a year.
const maxTime = "31536000"

// seconds is a time: a number of seconds, or text like 30s or 1m30s.
type seconds time.Duration

func (seconds) bounds() bounds { return bounds{"0", maxTime, int64(time.Second), "seconds"} }

func (s *seconds) decode(d *decoder, n *node, path string) {
	t, ok := span(n, time.Second)
	if !ok {
		d.mismatch(n, path, `a number of seconds, or a time like "30s" or "1m30s"`)
	}
	*s = seconds(t)
}

// MarshalJSON writes a number where that is exact.
func (s seconds) MarshalJSON() ([]byte, error) { return spanOut(time.Duration(s), time.Second) }

func (seconds) schema() schema {
	return schema{"anyOf": []schema{{"type": "number"}, {"type": "string", "pattern": spanForm.String()}}}
}

// spanForm is how times are written.
var spanForm = regexp.MustCompile(`^(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`)

// span reads a time: a number of units, or text. What is longer than a Duration
// can be is the longest that there is.
func span(n *node, unit time.Duration) (time.Duration, bool) {
	if r := n.rat(); r != nil {
		r.Mul(r, big.NewRat(int64(unit), 1))
		return time.Duration(floor(r.Add(r, big.NewRat(1, 2)))), true
	}
	positive, below := strings.CutPrefix(n.text, "-")
	if n.kind != text || !spanForm.MatchString(positive) {
		return 0, false
	}
	t, err := time.ParseDuration(positive)
	if err != nil {
		t = math.MaxInt64
	}
	if below {
		t = -t
	}
	return t, true
}

func spanOut(t, unit time.Duration) ([]byte, error) {
	if t%unit == 0 {
		return strconv.AppendInt(nil, int64(t/unit), 10), nil
	}
	return json.Marshal(t.String())
}

// millis is a time: a number of milliseconds, or text like 250ms.
type millis time.Duration

func (millis) bounds() bounds {
	return bounds{"0", maxTime + "000", int64(time.Millisecond), "milliseconds"}
}

func (m *millis) decode(d *decoder, n *node, path string) {
	t, ok := span(n, time.Millisecond)
	if !ok {
		d.mismatch(n, path, `a number of milliseconds, or a time like "250ms"`)
	}
	*m = millis(t)
}

// MarshalJSON writes a number where that is exact.
func (m millis) MarshalJSON() ([]byte, error) { return spanOut(time.Duration(m), time.Millisecond) }

func (millis) schema() schema { return seconds(0).schema() }

// patience is a time that may be without end: negative, or forever.
type patience time.Duration

func (patience) bounds() bounds { return bounds{"-" + maxTime, maxTime, int64(time.Second), "seconds"} }

func (p *patience) decode(d *decoder, n *node, path string) {
	t, ok := span(n, time.Second)
	switch {
	case n.kind == text && n.text == "forever":
		t = -time.Second
	case !ok:
		d.mismatch(n, path, `a number of seconds, a time like "5m", or "forever"`)
	}
	*p = patience(t)
}

// MarshalJSON writes a number where that is exact.
func (p patience) MarshalJSON() ([]byte, error) { return spanOut(time.Duration(p), time.Second) }

func (patience) schema() schema {
	return schema{"anyOf": []schema{{"type": "number"}, {"const": "forever"}, {"type": "string", "pattern": "^-?" + spanForm.String()[1:]}}}
}

// cpu is thousandths of a CPU: "100m", "0.5", 0.5 or 2.
type cpu int64

func (cpu) bounds() bounds { return bounds{"0", "1000000", 1000, "CPUs"} }

var cpuForm = regexp.MustCompile(`^([0-9]+\.?[0-9]*|\.[0-9]+)m?$`)

func (c *cpu) decode(d *decoder, n *node, path string) {
	r := n.rat()
	if n.kind == text && cpuForm.MatchString(n.text) {
		digits, thousandths := strings.CutSuffix(n.text, "m")
		r = (&node{kind: number, text: digits}).rat()
		if thousandths {
			r.Quo(r, big.NewRat(1000, 1))
		}
	}
	if r == nil {
		d.mismatch(n, path, `CPUs, like 2, 0.5 or "100m"`)
		return
	}
	*c = cpu(-floor(r.Mul(r, big.NewRat(-1000, 1)))) // what is less than a thousandth is not nothing
}

// MarshalJSON writes thousandths.
func (c cpu) MarshalJSON() ([]byte, error) {
	return json.Marshal(strconv.FormatInt(int64(c), 10) + "m")
}

func (cpu) schema() schema {
	return schema{"anyOf": []schema{{"type": "number"}, {"type": "string", "pattern": cpuForm.String()}}}
}

// byteSize is a number of bytes: "128Mi", "1G" or a number.
type byteSize int64

func (byteSize) bounds() bounds { return bounds{"0", "1125899906842624", 1, "bytes"} } // a pebibyte

var sizeForm = regexp.MustCompile(`^[0-9]*\.?[0-9]+ ?([kKmMgGtTpP][iI]?)?[bB]?$`)

func (b *byteSize) decode(d *decoder, n *node, path string) {
	r := n.rat()
	if n.kind == text && sizeForm.MatchString(n.text) {
		v, err := size.Parse(strings.Replace(n.text, " ", "", 1))
		if err != nil { // it is too large
			v = math.MaxInt64
		}
		r = big.NewRat(v, 1)
	}
	if r == nil || !r.IsInt() {
		d.mismatch(n, path, `a size, like "128Mi", "1G" or a number of bytes`)
		return
	}
	*b = byteSize(floor(r))
}

// MarshalJSON writes Mi where that is exact.
func (b byteSize) MarshalJSON() ([]byte, error) {
	if b != 0 && b%(1<<20) == 0 {
		return json.Marshal(strconv.FormatInt(int64(b>>20), 10) + "Mi")
	}
	return strconv.AppendInt(nil, int64(b), 10), nil
}

func (byteSize) schema() schema {
	return schema{"anyOf": []schema{{"type": "integer"}, {"type": "string", "pattern": sizeForm.String()}}}
}

// swap is a size, or -1.
type swap int64

func (s *swap) decode(d *decoder, n *node, path string) {
	if isMinusOne(n) {
		*s = -1
		return
	}
	if r := n.rat(); r != nil && r.Sign() < 0 {
		d.problem(path, "is %s; it must be a size, or -1 for as much as there is", brief(n.text))
		return
	}
	d.into((*byteSize)(s), n, path)
}

// MarshalJSON is that of a size.
func (s swap) MarshalJSON() ([]byte, error) {
	if s < 0 {
		return []byte("-1"), nil
	}
	return byteSize(s).MarshalJSON()
}

func (swap) schema() schema {
	return schema{"anyOf": append([]schema{{"const": -1}}, schemaOf[byteSize]()["anyOf"].([]schema)...)}
}

func isMinusOne(n *node) bool {
	r := n.rat()
	return r != nil && r.Cmp(big.NewRat(-1, 1)) == 0
}

// pids is a number of processes, or -1.
type pids int64

func (p *pids) decode(d *decoder, n *node, path string) {
	r := n.rat()
	if r == nil || !r.IsInt() || r.Num().Sign() < 1 && !isMinusOne(n) || r.Num().Cmp(big.NewInt(maxPIDs)) > 0 {
		d.problem(path, "is %s; it must be 1 to %d, or -1 for no limit", n.what(), maxPIDs)
		return
	}
	*p = pids(r.Num().Int64())
}

const maxPIDs = 4194304 // the kernel's bound

func (pids) schema() schema {
	return schema{"anyOf": []schema{{"const": -1}, {"type": "integer", "minimum": 1, "maximum": maxPIDs}}}
}

// restartPolicy is in the words of a node: "always", "on-failure:3", "no".
type restartPolicy string

var policies = regexp.MustCompile("^" + anyCase(`(always|never|no|unlessstopped|unless-stopped|(onfailure|on-failure)(:[0-9]{1,6})?)`) + "$")

func (p *restartPolicy) decode(d *decoder, n *node, path string) {
	if n.kind != text || !policies.MatchString(n.text) {
		d.mismatch(n, path, "Always, OnFailure, OnFailure:N or Never")
		return
	}
	*p = restartPolicy(strings.NewReplacer("onfailure", "on-failure", "never", "no", "unlessstopped", "unless-stopped").Replace(strings.ToLower(n.text)))
}

// MarshalJSON writes the words of manifests.
func (p restartPolicy) MarshalJSON() ([]byte, error) {
	return json.Marshal(strings.NewReplacer("on-failure", "OnFailure", "unless-stopped", "UnlessStopped", "always", "Always", "no", "Never").Replace(string(p)))
}

func (restartPolicy) schema() schema {
	return schema{"anyOf": []schema{{"enum": []any{"Always", "OnFailure", "Never", "UnlessStopped"}}, {"type": "string", "pattern": policies.String()}}}
}

// portRef is a port by number, or by name.
type portRef struct {
	number uint16
	name   string
}

func (p *portRef) decode(d *decoder, n *node, path string) {
	if n.kind == text && n.text != "" {
		p.name = n.text
		return
	}
	r := n.rat()
	if r == nil || !r.IsInt() || r.Sign() < 1 || r.Cmp(big.NewRat(65535, 1)) > 0 {
		d.mismatch(n, path, "a port: a number of 1 to 65535, or the name of one")
		return
	}
	p.number = uint16(r.Num().Uint64()) //nolint:gosec // it was looked at
}

// MarshalJSON writes the number.
func (p portRef) MarshalJSON() ([]byte, error) { return json.Marshal(p.number) }

func (portRef) schema() schema {
	return schema{"anyOf": []schema{{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "string", "minLength": 1}}}
}

// hostPath is a path, or an object with it.
type hostPath string

type hostPathFields struct {
	Path string `json:"path" need:"it is on the host" pattern:"^/" form:"absolute" doc:"Its path."`
}

func (h *hostPath) decode(d *decoder, n *node, path string) {
	if n.kind == text && strings.HasPrefix(n.text, "/") {
		*h = hostPath(n.text)
		return
	}
	if n.kind != object {
		d.mismatch(n, path, "a path of the host, which begins with /")
		return
	}
	var o hostPathFields
	d.into(&o, n, path)
	*h = hostPath(o.Path)
}

func (hostPath) schema() schema {
	return schema{"anyOf": []schema{{"type": "string", "pattern": "^/"}, schemaOf[hostPathFields]()}}
}

// memory is a tmpfs: true, or an object with its size.
type memory struct {
	memoryFields
	off bool
}

type memoryFields struct {
	Size   byteSize `json:"size,omitempty" also:"sizeLimit" doc:"Its bound. Default: half of the host's memory."`
	Medium string   `json:"medium,omitempty" oneof:"Memory" doc:"Memory, as Kubernetes spells it."`
}

// none says that it is not there, or that it says so.
func (m *memory) none() bool { return m == nil || m.off }

func (m *memory) decode(d *decoder, n *node, path string) {
	switch n.kind {
	case boolean:
		m.off = n.text == "false"
	case object:
		d.into(&m.memoryFields, n, path)
	default:
		d.mismatch(n, path, "true, or an object with a size")
	}
}

func (memory) schema() schema {
	return schema{"anyOf": []schema{{"type": "boolean"}, schemaOf[memoryFields]()}}
}

// refused is what would mean something that there is not.
type refused struct{}

func (*refused) decode(d *decoder, _ *node, path string) {
	d.problem(path, "is refused: there are no config maps; put the files into the image, or use hostPath")
}

func (refused) schema() schema { return schema{"not": schema{}} }

// device is a device node: an object, or "PATH[:TARGET[:PERMISSIONS]]".
type device deviceFields

type deviceFields struct {
	Path        string `json:"path" need:"a device has one" pattern:"^/|^[A-Za-z][^/=:]*/[^/=:]+=" form:"absolute, or vendor.com/class=name" doc:"Its path on the host, or vendor.com/class=name of a CDI spec there."`
	Target      string `json:"target,omitempty" pattern:"^/" form:"absolute" doc:"Its path inside. Default: the same."`
	Permissions string `json:"permissions,omitempty" pattern:"^[rwm]+$" form:"of r, w and m" doc:"r, w and m. Default: rwm."`
}

// deviceForm has docker's PATH:PERMISSIONS, too.
var deviceForm = regexp.MustCompile(`^(/[^:]*|[A-Za-z][^/=:]*/[^/=:]+=.+)(?::(/[^:]*))?(?::([rwm]+))?$`)

func (v *device) decode(d *decoder, n *node, path string) {
	if n.kind == object {
		d.into((*deviceFields)(v), n, path)
		return
	}
	parts := deviceForm.FindStringSubmatch(n.text)
	if n.kind != text || parts == nil {
		d.mismatch(n, path, "PATH, PATH:TARGET or PATH:TARGET:PERMISSIONS, with absolute paths, or an object")
		return
	}
	*v = device{Path: parts[1], Target: parts[2], Permissions: parts[3]}
}

func (device) schema() schema {
	return schema{"anyOf": []schema{{"type": "string", "pattern": deviceForm.String()}, schemaOf[deviceFields]()}}
}
