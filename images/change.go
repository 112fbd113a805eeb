package images

import "context"

// ChangeKind says what became of an image.
type ChangeKind string

// The kinds.
const (
	ChangePulled    ChangeKind = "pulled" // a content that was not here
	ChangeImported  ChangeKind = "imported"
	ChangeFailed    ChangeKind = "failed" // a pull or an import
	ChangePinned    ChangeKind = "pinned"
	ChangeUnpinned  ChangeKind = "unpinned"
	ChangeRemoved   ChangeKind = "removed"
	ChangeCollected ChangeKind = "collected" // removed to make room
)

// Change is something that became of an image.
type Change struct {
	Kind   ChangeKind
	Ref    string // as normalised; empty: an import that did not get as far
	Digest string
	Err    error // of ChangeFailed
}

// Tell says who is told of changes, each once it is so. f must return quickly.
func (s *Store) Tell(f func(ctx context.Context, c Change)) { s.told.Store(&f) }

func (s *Store) tell(ctx context.Context, c Change) {
	if f := s.told.Load(); f != nil {
		(*f)(ctx, c)
	}
}

// tellFetched tells how a pull or an import has ended. One that nobody waits for
// any more has not failed, and one that brought nothing new has changed nothing.
func (s *Store) tellFetched(ctx context.Context, kind ChangeKind, ref string, was *record, img Image, err error) {
	switch {
	case err != nil && ctx.Err() == nil:
		s.tell(ctx, Change{Kind: ChangeFailed, Ref: ref, Err: s.explainSpace(err)})
	case err == nil && (was == nil || was.Image.Digest != img.Digest || !was.Image.Pulled.Equal(img.Pulled)):
		s.tell(ctx, Change{Kind: kind, Ref: img.Ref, Digest: img.Digest})
	}
}
