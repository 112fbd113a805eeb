package store

import "context"

// Rank is whose turn comes first when a store has more callers than it takes.
type Rank int

// The ranks. A call without one is a Reader's.
const (
	Reader     Rank = iota // somebody waits for these bytes
	Ahead                  // somebody will probably want them next
	Background             // they may be wanted one day
	ranks
)

type rankKey struct{}

type ranked struct {
	rank  Rank
	hurry <-chan struct{}
}

// Ranked are calls of that rank; once hurry is closed, they are a Reader's, even where they already wait. hurry may be nil.
func Ranked(ctx context.Context, r Rank, hurry <-chan struct{}) context.Context {
	return context.WithValue(ctx, rankKey{}, ranked{r, hurry})
}

func rankOf(ctx context.Context) (Rank, <-chan struct{}) {
	v, ok := ctx.Value(rankKey{}).(ranked)
	if !ok {
		return Reader, nil
	}
	select {
	case <-v.hurry:
		return Reader, nil
	default:
		return v.rank, v.hurry
	}
}
