package tidemark

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
)

// reports are on their way, in memory only. A gateway that cannot report must not grow without a limit: acquire waits.
type reports struct {
	logf   func(string, ...interface{})
	slots  chan struct{}
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	isClosed bool
	sending  int
	idle     chan struct{} // closed when nothing is being sent, if drain waits for it
}

func newReports(most int, logf func(string, ...interface{})) *reports {
	r := &reports{logf: logf, slots: make(chan struct{}, most)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// acquire takes the place of one report.
func (r *reports) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.ctx.Err() != nil {
		return ErrClosed
	}
	select {
	case r.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.ctx.Done():
		return ErrClosed
	}
}

// free gives a place back.
func (r *reports) free() { <-r.slots }

// send takes over a report, whose place was acquired, and sends it until it is acknowledged.
func (r *reports) send(name string, try func(context.Context) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isClosed {
		r.logf("tidemark: the guard is closed: %s is lost", name)
		return
	}
	r.sending++
	go func() {
		defer r.free()
		r.untilAcknowledged(name, try)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.sending--
		if r.sending == 0 && r.idle != nil {
			close(r.idle)
			r.idle = nil
		}
	}()
}

// drain waits for all reports, ends, and returns how many were not acknowledged.
func (r *reports) drain(ctx context.Context) int {
	r.mu.Lock()
	r.isClosed = true
	left := r.sending
	if left > 0 && r.idle == nil {
		r.idle = make(chan struct{})
	}
	idle := r.idle
	r.mu.Unlock()
	if left > 0 {
		select {
		case <-idle:
			left = 0
		case <-ctx.Done():
			r.mu.Lock()
			left = r.sending
			r.mu.Unlock()
		}
	}
	r.cancel()
	return left
}

func (r *reports) untilAcknowledged(name string, try func(context.Context) error) {
	pauses := newPauses(firstReportPause, longestPause)
	for isFirst := true; ; isFirst = false {
		ctx, cancel := context.WithTimeout(r.ctx, reportTimeout)
		err := try(ctx)
		cancel()
		if err == nil || r.ctx.Err() != nil {
			return
		}
		// What an operator can change is repeated, too: the key gets its role, or is exchanged. What happened is still
		// true then.
		code := asError(err).Code
		if !isRepeated(code) && code != codes.Unauthenticated && code != codes.PermissionDenied {
			// A mistake of this program: an alert on this line must say so, because the usage is not counted.
			r.logf("tidemark: %s was refused: %v", name, err)
			return
		}
		if isFirst {
			r.logf("tidemark: %s is repeated: %v", name, err)
		}
		if sleep(r.ctx, pauses.failed()) != nil {
			return
		}
	}
}
