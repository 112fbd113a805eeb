package store

import "sync"

// Share is stores that several routers use. The zero Share is ready.
type Share struct {
	mu   sync.Mutex // guards open
	open map[string]*shared
}

type shared struct {
	gate  *gate
	users int
}

// take is the store at a URL, to be given back.
func (s *Share) take(rawURL string, opt Options) (*gate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.open[rawURL]; o != nil {
		o.users++
		return o.gate, nil
	}
	g, err := open(rawURL, opt)
	if err != nil {
		return nil, err
	}
	g.id = rawURL
	if s.open == nil {
		s.open = map[string]*shared{}
	}
	s.open[rawURL] = &shared{g, 1}
	return g, nil
}

// give closes a store that nobody has any longer.
func (s *Share) give(g *gate) error {
	s.mu.Lock()
	o := s.open[g.id]
	o.users--
	last := o.users == 0
	if last {
		delete(s.open, g.id)
	}
	s.mu.Unlock()
	if last {
		return g.Close()
	}
	return nil
}
