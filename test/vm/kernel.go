package vm

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/ulikunitz/xz"
)

// usualModules are loaded in each guest, with what they depend on: a host that
// runs containers has them, and there is nobody in a guest to load them on demand.
var usualModules = []string{
	"virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "ext4", "overlay", "fuse", "loop",
	"8021q", "bridge", "br_netfilter", "veth", "vxlan", "macvlan", "ipvlan", "dummy", "tun",
	"nf_tables", "nf_conntrack", "nf_conntrack_netlink", "nft_ct", "nft_nat", "nft_chain_nat", "nft_masq", "nft_redir",
	"nft_reject_inet", "nft_fib", "nft_fib_ipv4", "nft_fib_ipv6", "nft_fib_inet", "nft_limit",
}

// kernel is one that a distribution has built.
type kernel struct {
	image   string            // the file that QEMU starts
	modules map[string]string // by name: the files
	builtin map[string]bool   // by name: modules that are part of image
}

// findKernel fetches a kernel if there is none yet.
var findKernel = sync.OnceValues(func() (*kernel, error) {
	root, err := findUp("go.mod")
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd := exec.Command(filepath.Join(root, "scripts", "vmkernel"))
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("fetch a kernel: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return readKernel(strings.TrimSpace(string(out)))
})

// readKernel looks through an unpacked Debian package.
func readKernel(dir string) (*kernel, error) {
	k := &kernel{modules: map[string]string{}, builtin: map[string]bool{}}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(path), "vmlinuz-") {
			k.image = path
		}
		if name, ok := moduleName(path); ok {
			k.modules[name] = path
		}
		if filepath.Base(path) != "modules.builtin" {
			return err
		}
		raw, err := os.ReadFile(path)
		for file := range strings.FieldsSeq(string(raw)) {
			name, _ := moduleName(file)
			k.builtin[name] = true
		}
		return err
	})
	if err == nil && k.image == "" {
		err = fmt.Errorf("no kernel in %s", dir)
	}
	return k, err
}

// moduleName is what a module's file stands for.
func moduleName(path string) (name string, ok bool) {
	name, ok = strings.CutSuffix(strings.TrimSuffix(filepath.Base(path), ".xz"), ".ko")
	return strings.ReplaceAll(name, "-", "_"), ok
}

// module is one that a guest loads.
type module struct {
	name string
	data []byte
}

// closure gives the modules with all that they depend on, in an order in which
// they can be loaded. The packages have no modules.dep, so each is asked itself.
func (k *kernel) closure(names []string) (order []module, err error) {
	done := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		name = strings.ReplaceAll(name, "-", "_")
		if done[name] || k.builtin[name] {
			return nil
		}
		done[name] = true
		if k.modules[name] == "" {
			return fmt.Errorf("the kernel %s has no module %s", filepath.Base(k.image), name)
		}
		data, err := readModule(k.modules[name])
		if err != nil {
			return err
		}
		depends, err := dependsOf(data)
		if err != nil {
			return fmt.Errorf("%s: %w", k.modules[name], err)
		}
		for _, other := range depends {
			if err := add(other); err != nil {
				return err
			}
		}
		order = append(order, module{name, data})
		return nil
	}
	for _, name := range names {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

func readModule(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil || filepath.Ext(path) != ".xz" {
		return data, err
	}
	r, err := xz.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// dependsOf reads "depends=a,b" out of a module's list of NUL-terminated facts.
func dependsOf(data []byte) ([]string, error) {
	file, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, errors.New("not a module: no .modinfo")
	}
	facts, err := section.Data()
	if err != nil {
		return nil, err
	}
	for fact := range bytes.SplitSeq(facts, []byte{0}) {
		if list, ok := strings.CutPrefix(string(fact), "depends="); ok {
			return slices.DeleteFunc(strings.Split(list, ","), func(s string) bool { return s == "" }), nil
		}
	}
	return nil, nil
}
