package kmod

import (
	"bytes"
	"fmt"
	"strings"
)

// Depmod is the index of modules, as files beside modules.builtin.
func Depmod(modules []Module) map[string][]byte {
	there := map[string]string{} // files by name
	for _, m := range modules {
		there[m.Name] = m.File + Packed
	}
	var dep, aliases, soft bytes.Buffer
	for _, m := range modules {
		fmt.Fprintf(&dep, "%s:", there[m.Name])
		for _, other := range m.Depends {
			if file := there[other]; file != "" { // else it is part of the kernel
				fmt.Fprintf(&dep, " %s", file)
			}
		}
		fmt.Fprintln(&dep)
		for _, a := range m.Aliases {
			fmt.Fprintf(&aliases, "alias %s %s\n", a, m.Name)
		}
		if len(m.Before) > 0 {
			fmt.Fprintf(&soft, "softdep %s pre: %s\n", m.Name, strings.Join(m.Before, " "))
		}
	}
	return map[string][]byte{"modules.dep": dep.Bytes(), "modules.alias": aliases.Bytes(), "modules.softdep": soft.Bytes()}
}
