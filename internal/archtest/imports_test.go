package archtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// allowed says which of our packages each package may import besides itself
// and what is below it. The first row that fits a package holds for it.
var allowed = []struct {
	pkg string
	may []string
}{
	{"internal/...", []string{"internal/..."}}, // below everything

	// Strangers to each other; node joins them.
	{"netcfg", []string{"internal/..."}},
	{"netcfg/dns", []string{"internal/..."}},
	{"netcfg/cni", []string{"internal/..."}},
	{"netcfg/dhcp", []string{"internal/..."}},
	{"images/...", []string{"internal/..."}},
	{"flist/...", []string{"internal/..."}},
	{"gpu/...", []string{"internal/..."}},

	// container is given a rootfs and a netns; what it knows of the shim is its messages.
	{"container/shimapi", []string{"internal/..."}},
	{"container/shim", []string{"container/shimapi", "internal/..."}},
	{"container", []string{"container/shimapi", "internal/..."}},

	{"node/state", []string{"internal/..."}},
	{"node/events", []string{"internal/..."}},
	{"node/boot", []string{"netcfg", "netcfg/dhcp", "internal/..."}},
	{"node/boot/pxe", []string{"netcfg/dhcp", "internal/..."}},
	{"node/doctor", []string{"netcfg", "internal/..."}},
	{"node/inventory", []string{"internal/..."}},
	{"node/probe", []string{"internal/..."}},
	{"node/webhooks", []string{"node/events", "node/state", "internal/..."}},
	{"node/upgrade", []string{"node/events", "node/inventory", "sdk/go", "internal/..."}}, // it asks the next buoyd by its API
	{"node/lazy", []string{"container/shimapi", "flist/flistapi", "internal/..."}},
	{"node/agent", []string{"api/hosts/hostapi", "sdk/go", "internal/..."}}, // it uses the node by its API, as anybody does
	{"node", []string{"container", "container/shimapi", "gpu/...", "netcfg/...", "images/...", "flist/flistapi", "node/...", "internal/..."}},

	// One contract, and a store that keeps it.
	{"store/storetest", []string{"app", "sdk/go", "internal/..."}},
	{"store/sqlite", []string{"app", "internal/..."}},

	{"app/manifest", []string{"app", "sdk/go", "internal/..."}}, // what people write, and the schema of it
	{"app/apptest", []string{"app", "internal/..."}},            // an engine with hosts, for tests of its callers
	{"app", []string{"sdk/go", "internal/..."}},                 // replicas are containers in the words of the API
	{"proxy", []string{"internal/..."}},

	// Dialects know neither each other nor a store.
	{"api/auth", []string{"internal/..."}},
	{"api/certs", []string{"internal/..."}},
	{"api/audit", []string{"internal/..."}},
	{"api", []string{"api/audit", "api/auth", "internal/..."}},
	{"api/access", []string{"api", "api/audit", "api/auth", "api/certs", "internal/..."}},
	{"api/nodes", []string{"api", "api/auth", "gpu", "gpu/cdi", "node", "node/doctor", "node/events", "node/inventory", "node/probe", "node/upgrade", "container", "netcfg", "images/...", "internal/..."}},
	{"api/events", []string{"api", "api/auth", "node/events", "node/webhooks", "images", "internal/..."}},
	{"api/apps", []string{"api", "api/auth", "app", "app/manifest", "internal/..."}},
	{"api/services", []string{"api", "api/auth", "app", "app/manifest", "sdk/go", "internal/..."}},
	{"api/osc", []string{"api", "api/auth", "app", "app/manifest", "sdk/go", "internal/..."}},
	{"api/hosts/hostapi", nil}, // its messages: the agent of a node speaks them, too
	{"api/hosts", []string{"api", "api/auth", "api/hosts/hostapi", "app", "sdk/go", "internal/..."}},
	{"api/tunnel", []string{"api/hosts/hostapi", "internal/..."}},
	{"api/system", []string{"api", "api/auth", "gpu", "node", "container", "internal/..."}},

	{"sdk/go/...", nil}, // others import it: it brings nothing along
	{"cmd/buoy", []string{"sdk/go/...", "internal/..."}},
	{"cmd/buoy-shim", []string{"container/shim", "internal/..."}},
	{"cmd/buoy-gpu", []string{"gpu/...", "internal/..."}},
	{"cmd/buoy-flist", []string{"flist/...", "images/...", "internal/..."}},
	{"cmd/buoyd", []string{"..."}}, // wires all of it

	{"bench/...", []string{"sdk/go/...", "container/shimapi", "netcfg", "app", "proxy", "api/hosts/hostapi", "api/tunnel", "internal/..."}},
	{"test/...", []string{"sdk/go/...", "container/shimapi", "internal/..."}},
	{"scripts/mkinitrd", []string{"internal/..."}}, // what it packs, machines unpack
	{"scripts/...", nil},
	{"examples/...", nil},
}

func directions(t *tree) (complaints []string) {
	for _, pkg := range slices.Sorted(maps.Keys(t.packages)) {
		row := slices.IndexFunc(allowed, func(r struct {
			pkg string
			may []string
		},
		) bool {
			return within(pkg, r.pkg)
		})
		if row < 0 {
			complaints = append(complaints, fmt.Sprintf(
				"%s is new: say in the table of internal/archtest and in ARCHITECTURE.md what it may import", pkg))
			continue
		}
		may := append(slices.Clone(allowed[row].may), allowed[row].pkg, pkg+"/...")
		if allowed[row].pkg == pkg {
			may = may[:len(may)-1] // a row without "/..." speaks of one folder alone
		}
		for _, f := range t.packages[pkg] {
			for _, imported := range f.imports {
				dep, ok := ours(imported)
				if ok && !slices.ContainsFunc(may, func(p string) bool { return within(dep, p) }) {
					complaints = append(complaints, fmt.Sprintf(
						"%s imports %s, which %s may not: let it declare an interface with what it calls, and have cmd/buoyd join the two",
						f.path, dep, pkg))
				}
			}
		}
	}
	return complaints
}

// linked names the only programs that may link a dependency, however far
// down. Programs not named stay small, or build on any system.
var linked = []struct {
	dep  string
	cmds []string
	why  string
}{
	{"github.com/opencontainers/runc", []string{"cmd/buoy-shim"}, "its C runs before main"},
	{"github.com/opencontainers/cgroups", []string{"cmd/buoy-shim"}, "it comes with libcontainer"},
	{"github.com/NVIDIA/go-nvml", []string{"cmd/buoy-gpu"}, "it needs cgo and a dynamic C library"},
	{"github.com/vishvananda/netlink", []string{"cmd/buoyd"}, "the CLI builds on any system"},
	{"github.com/google/nftables", []string{"cmd/buoyd"}, "the CLI builds on any system"},
	{"github.com/miekg/dns", []string{"cmd/buoyd"}, "only buoyd is asked for names"},
	{"github.com/containernetworking/cni", []string{"cmd/buoyd"}, "only buoyd connects containers"},
	{"github.com/insomniacslk/dhcp", []string{"cmd/buoyd"}, "only buoyd connects containers, and boots machines"},
	{"modernc.org/sqlite", []string{"cmd/buoyd", "cmd/buoy-flist"}, "it is paid at every container start and every call of the CLI"},
	{"github.com/go-chi/chi", []string{"cmd/buoyd"}, "only buoyd serves HTTP"},
	{"github.com/go-chi/chi/v5/middleware", nil, "it brings net/http/pprof along"},
	{"github.com/prometheus/client_golang", nil, "it and its protobuf were a tenth of buoyd; internal/prometheus writes metrics"},
	{"github.com/google/go-containerregistry", []string{"cmd/buoyd", "cmd/buoy-flist"}, "only buoyd pulls images, and buoy-flist to pack them"},
	{"github.com/hanwen/go-fuse", []string{"cmd/buoy-flist"}, "only buoy-flist serves file systems"},
	{"github.com/hashicorp/yamux", []string{"cmd/buoyd", "bench"}, "only buoyd is a host or a controller"},
	{"github.com/CycloneDX/cyclonedx-go", nil, "only scripts/sbom writes bills of materials"},
	{"text/template", []string{"cmd/buoy"}, "it calls methods by name, so the linker keeps all that there are: 3 MB of buoyd"},
	{"html/template", nil, "so does it"},
	{"github.com/spf13/cobra", []string{"cmd/buoy", "cmd/buoyd"}, "its start is paid at every container start"},
}

func links(t *tree) (complaints []string) {
	for _, cmd := range slices.Sorted(maps.Keys(t.packages)) {
		if !strings.HasPrefix(cmd, "cmd/") {
			continue
		}
		seen := map[string]bool{}
		var walk func(pkg string, way []string)
		walk = func(pkg string, way []string) {
			if seen[pkg] {
				return
			}
			seen[pkg] = true
			way = append(slices.Clone(way), pkg)
			for _, f := range t.packages[pkg] {
				for _, imported := range f.imports {
					if dep, ok := ours(imported); ok {
						walk(dep, way)
						continue
					}
					for _, l := range linked {
						if within(imported, l.dep+"/...") && !slices.Contains(l.cmds, cmd) {
							complaints = append(complaints, fmt.Sprintf(
								"%s links %s by way of %s; only %s may: %s",
								cmd, imported, strings.Join(way, " → "), strings.Join(l.cmds, " and "), l.why))
						}
					}
				}
			}
		}
		walk(cmd, nil)
	}
	return complaints
}

// cgoHomes are the packages that may hold C.
var cgoHomes = []string{"cmd/buoy-shim", "gpu/nvml"}

func cgo(t *tree) (complaints []string) {
	for _, pkg := range slices.Sorted(maps.Keys(t.packages)) {
		for _, f := range t.packages[pkg] {
			if slices.Contains(f.imports, "C") && !slices.Contains(cgoHomes, pkg) {
				complaints = append(complaints, fmt.Sprintf(
					"%s uses cgo: only %s may, so that the other programs are static and cross-compile",
					f.path, strings.Join(cgoHomes, " and ")))
			}
		}
	}
	return complaints
}
