package tidemark

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"

	pb "tidemark.dev/api/tidemark/v1"
)

// eventOverhead is the memory of an event beside its content, in bytes.
const eventOverhead = 64

// UsageWriter puts usage events together into messages, and sends each message until it is acknowledged: after a broken
// connection or a restart of the server it sends what is not acknowledged again. The server counts no event twice. The
// events of a customer keep their order. Goroutines may share a writer.
//
// What is pending is in memory only: a process that is killed loses it.
type UsageWriter struct {
	client  *Client
	options WriterOptions
	answers answerOptions
	lanes   []*lane
	seed    maphash.Seed
	ctx     context.Context // of the streams; it ends with the writer
	cancel  context.CancelFunc
	running sync.WaitGroup
	callMu  sync.Mutex // one function of the program at a time

	mu      sync.Mutex
	counts  WriterCounts
	bytes   int
	failure *Error
	closing bool
	closed  bool
	changed chan struct{} // closed at the next change, if something waits for it
	number  uint64
}

// Ack is the acknowledgement of one event.
type Ack struct {
	done    chan struct{}
	outcome *pb.UsageOutcome
	err     error
}

// Done is closed when there is an answer.
func (a *Ack) Done() <-chan struct{} { return a.done }

// Wait returns the outcome of the message of the event once the event is counted, now or before, or an *Error that says
// why it is not. It returns the error of the context if that ends first.
func (a *Ack) Wait(ctx context.Context) (*pb.UsageOutcome, error) {
	select {
	case <-a.done:
		return a.outcome, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (a *Ack) finish(outcome *pb.UsageOutcome, err error) {
	a.outcome, a.err = outcome, err
	close(a.done)
}

// UsageWriter makes a writer, which sends in the background. Close it before the client. It returns an error for options
// that are wrong.
func (c *Client) UsageWriter(options WriterOptions) (*UsageWriter, error) {
	complete, err := options.complete()
	if err != nil {
		return nil, err
	}
	w := &UsageWriter{
		client:  c,
		options: complete,
		answers: answerOptions{complete.IncludeGauges, complete.MaxAnswerBytes},
		seed:    maphash.MakeSeed(),
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	for i := 0; i < complete.Streams; i++ {
		one := newLane(w)
		w.lanes = append(w.lanes, one)
		w.running.Add(1)
		go func() {
			defer w.running.Done()
			one.run()
		}()
	}
	return w, nil
}

// Send takes an event, and waits only for room. An event without an id or a time gets them. The event may be changed
// afterwards: the writer has a copy.
//
// It returns the error of the context if that ends first, the *Error of a writer that has failed, ErrClosed after Close,
// and another error for an event that is too large or no valid text.
func (w *UsageWriter) Send(ctx context.Context, event *pb.UsageEvent) error {
	return w.take(ctx, event, nil)
}

// Submit takes an event as Send does, and returns its acknowledgement.
func (w *UsageWriter) Submit(ctx context.Context, event *pb.UsageEvent) (*Ack, error) {
	ack := &Ack{done: make(chan struct{})}
	if err := w.take(ctx, event, ack); err != nil {
		return nil, err
	}
	return ack, nil
}

// Counts returns what the writer has done so far.
func (w *UsageWriter) Counts() WriterCounts {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts
}

// Flush waits until every event that was taken before is acknowledged or rejected. It returns the error of the context
// if that ends first, and the *Error of a writer that fails.
func (w *UsageWriter) Flush(ctx context.Context) error {
	w.mu.Lock()
	var waiting []*pending
	for _, one := range w.lanes {
		one.seal()
		waiting = append(waiting, one.waiting()...)
	}
	w.mu.Unlock()
	for _, one := range waiting {
		for ; one != nil; one = one.again { // again is set before done is closed
			select {
			case <-one.done:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failure != nil {
		return w.failure
	}
	return nil
}

// Close takes no further events, waits until all are acknowledged or the context ends, and ends the writer. It returns
// an *Error that wraps ErrConnectionLost if events are not acknowledged, as the Acks of these events do, and the *Error
// of a writer that has failed.
func (w *UsageWriter) Close(ctx context.Context) error {
	w.mu.Lock()
	w.closing = true
	w.note()
	w.mu.Unlock()
	_ = w.Flush(ctx) // what it returns is found again below
	w.mu.Lock()
	w.closed = true
	pending := w.counts.Pending
	for _, one := range w.lanes {
		one.signal()
	}
	w.mu.Unlock()
	if pending == 0 {
		w.farewell()
	}
	w.cancel()
	w.running.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failure == nil && w.counts.Pending > 0 {
		w.failure = lost(fmt.Sprintf("%d usage events are not acknowledged", w.counts.Pending))
	}
	if w.failure == nil {
		return nil
	}
	for _, one := range w.lanes {
		one.abandon(w.failure)
	}
	return w.failure
}

// farewell lets the streams end by themselves, as long as the server answers soon.
func (w *UsageWriter) farewell() {
	ended := make(chan struct{})
	go func() {
		w.running.Wait()
		close(ended)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), w.options.farewell)
	defer cancel()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

func (w *UsageWriter) take(ctx context.Context, event *pb.UsageEvent, ack *Ack) error {
	content, err := encoded(event)
	if err != nil {
		return err
	}
	at := 0
	if len(w.lanes) > 1 {
		at = int(maphash.String(w.seed, event.CustomerId) % uint64(len(w.lanes)))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if w.failure != nil {
			return w.failure
		}
		if w.closing {
			return ErrClosed
		}
		if w.counts.Pending < int64(w.options.MaxPendingEvents) && w.bytes < w.options.MaxPendingBytes {
			break
		}
		for _, one := range w.lanes { // what fills memory may be in messages that are not full
			one.seal()
		}
		if err := w.await(ctx); err != nil {
			return err
		}
	}
	w.counts.Pending++
	w.bytes += len(content) + eventOverhead
	w.lanes[at].add(content, ack)
	return nil
}

// await waits for a change; w.mu is held before and after.
func (w *UsageWriter) await(ctx context.Context) error {
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	changed := w.changed
	w.mu.Unlock()
	defer w.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// note wakes what waits for a change; w.mu is held.
func (w *UsageWriter) note() {
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// fail ends the writer with an error that a new try would not change.
func (w *UsageWriter) fail(err *Error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failure != nil {
		return
	}
	w.failure = err
	w.cancel()
	for _, one := range w.lanes {
		one.abandon(err)
	}
	w.note()
}

// call calls a function of the program; w.mu is not held.
func (w *UsageWriter) call(function func()) {
	w.callMu.Lock()
	defer w.callMu.Unlock()
	function()
}
