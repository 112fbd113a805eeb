package proxy

import (
	"cmp"
	"slices"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Check says what Update would refuse of an app beside those there are.
func (p *Proxy) Check(a App) error {
	c, err := a.claim()
	if err != nil {
		return err
	}
	return p.table.Load().clash(c, p.own)
}

// clash says which of an app's claims another one has; own are the doors of the
// proxy itself.
func (t *table) clash(c claim, own []door) error {
	for _, r := range c.rules {
		for _, s := range t.sites.get([]byte(r.Host)) {
			if s.path == r.Path && s.app.name != c.Name {
				return errs.E(errs.Conflict, "apps %q and %q both want host %q with path %q", s.app.name, c.Name, cmp.Or(r.Host, "*"), cmp.Or(r.Path, "/"))
			}
		}
	}
	for _, d := range c.doors {
		if slices.ContainsFunc(own, d.meets) {
			return errs.E(errs.Conflict, "app %q wants %s port %d, where HTTP is answered for all apps", c.Name, d.proto, d.at.Port())
		}
		for _, o := range t.streams.get(d.knock(nil)) {
			if o.app.name != c.Name && d.meets(o.door) {
				return errs.E(errs.Conflict, "apps %q and %q both want %s port %d (%s and %s)", o.app.name, c.Name, d.proto, d.at.Port(), o.at, d.at)
			}
		}
	}
	return nil
}

// draft is the next table while it is made.
type draft struct {
	table
	copied  struct{ sites, streams, apps copied }
	changed bool   // it is another table than before
	touched []door // those that another app may have now, or none
}

// update puts apps in, with what they claim, and takes away those that are gone.
func (d *draft) update(apps []App, gone []string, own []door) ([]change, error) {
	claims := make([]claim, 0, len(apps))
	names := make(map[string]bool, len(apps))
	for _, a := range apps {
		c, err := a.claim()
		if err != nil {
			return nil, err
		}
		if names[a.Name] {
			return nil, errs.E(errs.Invalid, "app %q is there twice", a.Name)
		}
		names[a.Name] = true
		claims = append(claims, c)
	}
	var changes []change
	for _, name := range gone {
		if a := d.apps.get([]byte(name)); a != nil {
			d.remove(a)
			changes = append(changes, change{app: a, next: &version{}})
		}
	}
	lasting, moved := d.release(claims)
	for _, i := range moved {
		if err := d.clash(claims[i], own); err != nil {
			return nil, err
		}
		d.add(lasting[i], claims[i])
	}
	for i, a := range lasting { // from here on nothing is refused
		changes = append(changes, change{app: a, next: a.version(claims[i])})
	}
	return changes, nil
}

// release finds what lasts of apps, or makes it, and takes away what they have
// where they claim something else; moved are these.
func (d *draft) release(claims []claim) (lasting []*app, moved []int) {
	for i, c := range claims {
		a := d.apps.get([]byte(c.Name))
		switch {
		case a == nil:
			a = newApp(c.Name)
			moved = append(moved, i)
		case !a.claims(c):
			d.remove(a)
			moved = append(moved, i)
		}
		lasting = append(lasting, a)
	}
	return lasting, moved
}

// add has an app in the table, with what it claims.
func (d *draft) add(a *app, c claim) {
	d.changed = true
	d.apps.put(&d.copied.apps, a.name, a)
	for _, r := range c.rules {
		s := slices.Clone(d.sites.get([]byte(r.Host)))
		i, _ := slices.BinarySearchFunc(s, len(r.Path), func(p place, n int) int { return cmp.Compare(n, len(p.path)) })
		d.sites.put(&d.copied.sites, r.Host, slices.Insert(s, i, place{r.Path, a}))
	}
	for _, o := range c.doors {
		k := o.knock(nil)
		d.streams.put(&d.copied.streams, string(k), append(slices.Clip(d.streams.get(k)), owned{o, a}))
	}
	d.touched = append(d.touched, c.doors...)
}

// remove takes away what an app has.
func (d *draft) remove(a *app) {
	d.changed = true
	v := a.now.Load()
	d.apps.drop(&d.copied.apps, a.name)
	for _, r := range v.rules {
		s := slices.DeleteFunc(slices.Clone(d.sites.get([]byte(r.Host))), func(p place) bool { return p.app == a && p.path == r.Path })
		if len(s) == 0 {
			d.sites.drop(&d.copied.sites, r.Host)
		} else {
			d.sites.put(&d.copied.sites, r.Host, s)
		}
	}
	for _, o := range v.doors {
		k := o.knock(nil)
		l := slices.DeleteFunc(slices.Clone(d.streams.get(k)), func(x owned) bool { return x.door == o })
		if len(l) == 0 {
			d.streams.drop(&d.copied.streams, string(k))
		} else {
			d.streams.put(&d.copied.streams, string(k), l)
		}
	}
	d.touched = append(d.touched, v.doors...)
}
