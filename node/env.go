package node

import "strings"

// addressVar in the value of an environment variable stands for the address of
// the container that Container.Address names, without the length of its
// network; for nothing if it has none.
const addressVar = "$(buoy.address)"

// addressed is env with the container's address in it.
func (b *box) addressed(env []string) []string {
	var out []string
	for i, e := range env {
		if !strings.Contains(e, addressVar) {
			continue
		}
		if out == nil {
			out = append(out, env...)
		}
		address := get(b, func() string { return Container{Spec: b.spec, NICs: b.nics()}.Address() })
		address, _, _ = strings.Cut(address, "/")
		out[i] = strings.ReplaceAll(e, addressVar, address)
	}
	if out == nil {
		return env
	}
	return out
}
