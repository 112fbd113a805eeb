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
		d.mismatch(n, path, "text")
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

// maxTime is the longest time that is understood.
const maxTime = 365 * 24 * time.Hour

// seconds is a time: a number of seconds, or text like 30s or 1m30s.
type seconds time.Duration

func (s *seconds) decode(d *decoder, n *node, path string) {
	t, ok := span(n, time.Second)
	if !ok || t < 0 || t > maxTime {
		d.mismatch(n, path, `a number of seconds, or a time like "30s" or "1m30s"`)
		return
	}
	*s = seconds(t)
}

// MarshalJSON writes a number where that is exact.
func (s seconds) MarshalJSON() ([]byte, error) { return spanOut(time.Duration(s), time.Second) }

func (seconds) schema() schema {
	return schema{"anyOf": []schema{{"type": "number", "minimum": 0}, {"type": "string", "pattern": spanForm}}}
}

// spanForm is how times are written.
const spanForm = `^[-+]?(0|([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))+$`

// span reads a time: a number of units, or text.
func span(n *node, unit time.Duration) (time.Duration, bool) {
	switch n.kind {
	case number:
		f, err := strconv.ParseFloat(n.text, 64)
		if t := f * float64(unit); err == nil && math.Abs(t) < math.MaxInt64 {
			return time.Duration(math.Round(t)), true
		}
	case text:
		t, err := time.ParseDuration(n.text)
		return t, err == nil
	default:
	}
	return 0, false
}

func spanOut(t, unit time.Duration) ([]byte, error) {
	if t%unit == 0 {
		return strconv.AppendInt(nil, int64(t/unit), 10), nil
	}
	return json.Marshal(t.String())
}

// millis is a time: a number of milliseconds, or text like 250ms.
type millis time.Duration

func (m *millis) decode(d *decoder, n *node, path string) {
	t, ok := span(n, time.Millisecond)
	if !ok || t < 0 || t > maxTime {
		d.mismatch(n, path, `a number of milliseconds, or a time like "250ms"`)
		return
	}
	*m = millis(t)
}

// MarshalJSON writes a number where that is exact.
func (m millis) MarshalJSON() ([]byte, error) { return spanOut(time.Duration(m), time.Millisecond) }

func (millis) schema() schema { return seconds(0).schema() }

// patience is a time that may be without end: negative, or forever.
type patience time.Duration

func (p *patience) decode(d *decoder, n *node, path string) {
	t, ok := span(n, time.Second)
	if n.kind == text && n.text == "forever" {
		t, ok = -time.Second, true
	}
	if !ok || t > maxTime {
		d.mismatch(n, path, `a number of seconds, a time like "5m", or "forever"`)
		return
	}
	*p = patience(t)
}

// MarshalJSON writes a number where that is exact.
func (p patience) MarshalJSON() ([]byte, error) { return spanOut(time.Duration(p), time.Second) }

func (patience) schema() schema {
	return schema{"anyOf": []schema{{"type": "number"}, {"const": "forever"}, {"type": "string", "pattern": spanForm}}}
}

// cpu is thousandths of a CPU: "100m", "0.5", 0.5 or 2.
type cpu int64

// maxCPU is more than any host has.
const maxCPU = 1 << 30

func (c *cpu) decode(d *decoder, n *node, path string) {
	digits, thousandths := strings.CutSuffix(n.text, "m")
	r, ok := size.Decimal(digits)
	if ok = ok && (n.kind == text || n.kind == number); ok {
		if !thousandths {
			r.Mul(r, big.NewRat(1000, 1))
		}
		ok = r.IsInt() && r.Num().IsInt64() && r.Num().Int64() <= maxCPU
	}
	if !ok {
		d.mismatch(n, path, `CPUs, like 2, 0.5 or "100m"`)
		return
	}
	*c = cpu(r.Num().Int64())
}

// MarshalJSON writes thousandths.
func (c cpu) MarshalJSON() ([]byte, error) {
	return json.Marshal(strconv.FormatInt(int64(c), 10) + "m")
}

func (cpu) schema() schema {
	return schema{"anyOf": []schema{{"type": "number", "minimum": 0}, {"type": "string", "pattern": `^([0-9]+m|[0-9]*\.?[0-9]+|[0-9]+\.)$`}}}
}

// byteSize is a number of bytes: "128Mi", "1G" or a number.
type byteSize int64

func (b *byteSize) decode(d *decoder, n *node, path string) {
	v, err := size.Parse(strings.Replace(n.text, " ", "", 1))
	if n.kind != text && n.kind != number || err != nil {
		d.mismatch(n, path, `a size, like "128Mi", "1G" or a number of bytes`)
		return
	}
	*b = byteSize(v)
}

// MarshalJSON writes Mi where that is exact.
func (b byteSize) MarshalJSON() ([]byte, error) {
	if b != 0 && b%(1<<20) == 0 {
		return json.Marshal(strconv.FormatInt(int64(b>>20), 10) + "Mi")
	}
	return strconv.AppendInt(nil, int64(b), 10), nil
}

func (byteSize) schema() schema {
	return schema{"anyOf": []schema{{"type": "integer", "minimum": 0}, {"type": "string", "pattern": `^[0-9]*\.?[0-9]+ ?([kKmMgGtTpP]i?)?[bB]?$`}}}
}

// swap is a size, or -1.
type swap int64

func (s *swap) decode(d *decoder, n *node, path string) {
	if n.kind == number && n.text == "-1" {
		*s = -1
		return
	}
	(*byteSize)(s).decode(d, n, path)
}

// MarshalJSON is that of a size.
func (s swap) MarshalJSON() ([]byte, error) {
	if s < 0 {
		return []byte("-1"), nil
	}
	return byteSize(s).MarshalJSON()
}

func (swap) schema() schema {
	return schema{"anyOf": append([]schema{{"const": -1}}, byteSize(0).schema()["anyOf"].([]schema)...)}
}

// restartPolicy is in the words of a node: "always", "on-failure:3", "no".
type restartPolicy string

var policies = regexp.MustCompile(`^(?i)(always|never|no|unlessstopped|unless-stopped|(onfailure|on-failure)(:[0-9]{1,6})?)$`)

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
	return schema{"type": "string", "pattern": `^(Always|OnFailure(:[0-9]{1,6})?|Never|UnlessStopped|always|no|on-failure(:[0-9]{1,6})?|unless-stopped)$`}
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
	i, err := strconv.ParseUint(n.text, 10, 16)
	if n.kind != number || err != nil || i == 0 {
		d.mismatch(n, path, "the number or the name of a port")
		return
	}
	p.number = uint16(i)
}

// MarshalJSON writes the number.
func (p portRef) MarshalJSON() ([]byte, error) { return json.Marshal(p.number) }

func (portRef) schema() schema {
	return schema{"anyOf": []schema{{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "string", "minLength": 1}}}
}

// hostPath is a path, or an object with it.
type hostPath string

func (h *hostPath) decode(d *decoder, n *node, path string) {
	if n.kind == object {
		var o struct {
			Path string `json:"path" need:"it is on the host"`
		}
		d.into(&o, n, path)
		*h = hostPath(o.Path)
		return
	}
	if n.kind != text || !strings.HasPrefix(n.text, "/") {
		d.mismatch(n, path, "a path of the host, which begins with /")
		return
	}
	*h = hostPath(n.text)
}

func (hostPath) schema() schema {
	abs := schema{"type": "string", "pattern": "^/"}
	return schema{"anyOf": []schema{abs, {"type": "object", "properties": schema{"path": abs}, "required": []string{"path"}, "additionalProperties": false}}}
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
	Path        string `json:"path" need:"a device has one" doc:"Its path on the host."`
	Target      string `json:"target,omitempty" doc:"Its path inside. Default: the same."`
	Permissions string `json:"permissions,omitempty" doc:"r, w and m. Default: rwm."`
}

func (v *device) decode(d *decoder, n *node, path string) {
	if n.kind != text {
		d.into((*deviceFields)(v), n, path)
		return
	}
	parts := strings.SplitN(n.text, ":", 4)
	for i, into := range []*string{&v.Path, &v.Target, &v.Permissions} {
		if i < len(parts) {
			*into = parts[i]
		}
	}
	if len(parts) == 2 && strings.Trim(v.Target, "rwm") == "" { // docker's PATH:PERMISSIONS
		v.Target, v.Permissions = "", v.Target
	}
	if len(parts) > 3 || v.Path == "" {
		d.mismatch(n, path, "PATH:TARGET:PERMISSIONS")
	}
}

func (device) schema() schema {
	return schema{"anyOf": []schema{{"type": "string", "pattern": "^/"}, schemaOf[deviceFields]()}}
}
