package tidemark

import (
	"context"
	"math/rand"
	"time"
)

const (
	firstPause   = 250 * time.Millisecond
	longestPause = 5 * time.Second
)

// pauses are those between the tries of one thing. Each is twice as long as the one before, so that a server that is
// away is not flooded; a random part of up to a half is taken off, so that clients do not return to it at once.
type pauses struct {
	first, longest time.Duration
	next           time.Duration
	random         *rand.Rand
}

func newPauses(first, longest time.Duration) *pauses {
	// The source of the package math/rand gives the same numbers in every process before Go 1.20.
	return &pauses{first: first, longest: longest, next: first, random: rand.New(rand.NewSource(time.Now().UnixNano()))}
}

// reset begins anew, since the last try succeeded.
func (p *pauses) reset() { p.next = p.first }

// failed counts a failure, and returns the pause before the next try.
func (p *pauses) failed() time.Duration {
	length := p.next
	if p.next *= 2; p.next > p.longest {
		p.next = p.longest
	}
	return length - time.Duration(p.random.Int63n(int64(length)/2+1))
}

// sleep waits, and returns the error of the context if that ends first.
func sleep(ctx context.Context, length time.Duration) error {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
