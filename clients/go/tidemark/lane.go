package tidemark

import (
	"fmt"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "tidemark.dev/api/tidemark/v1"
)

// maxTries is how often an event is sent that the server fails to record, before it counts as rejected.
const maxTries = 3

// pending is one message of usage.
type pending struct {
	batchID string
	events  [][]byte
	acks    map[int]*Ack // of events, by their index
	size    int          // bytes in memory
	tries   int
	done    chan struct{} // closed when it is answered
	again   *pending      // the events that the server may record later
}

func (p *pending) add(content []byte, ack *Ack) {
	if ack != nil {
		if p.acks == nil {
			p.acks = map[int]*Ack{}
		}
		p.acks[len(p.events)] = ack
	}
	p.events = append(p.events, content)
	p.size += len(content) + eventOverhead
}

// lane is one of the streams of a writer, with its messages. The mutex of the writer guards it, except what only the
// goroutine of the stream uses.
type lane struct {
	w        *UsageWriter
	wake     chan struct{}
	filling  *pending
	timer    *time.Timer
	queue    []*pending
	inFlight []*pending
	delayed  []*pending

	answered int       // messages
	alive    time.Time // of the last answer or heartbeat
	faults   int       // streams in a row that ended with a fault of the server, and without an answer
	pauses   *pauses
}

func newLane(w *UsageWriter) *lane {
	return &lane{w: w, wake: make(chan struct{}, 1), pauses: newPauses(w.options.firstPause, longestPause)}
}

// signal wakes what waits for messages, room or the end.
func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default: // it is awake
	}
}

func (l *lane) newPending(tries int) *pending {
	l.w.number++
	return &pending{batchID: "g" + strconv.FormatUint(l.w.number, 10), tries: tries, done: make(chan struct{})}
}

// add takes an encoded event; w.mu is held.
func (l *lane) add(content []byte, ack *Ack) {
	options := &l.w.options
	if l.filling == nil {
		filling := l.newPending(0)
		l.filling = filling
		if options.Linger > 0 {
			l.timer = time.AfterFunc(options.Linger, func() {
				l.w.mu.Lock()
				defer l.w.mu.Unlock()
				if l.filling == filling {
					l.seal()
				}
			})
		}
	}
	l.filling.add(content, ack)
	if len(l.filling.events) >= options.MaxBatchEvents || l.filling.size >= options.MaxBatchBytes || options.Linger < 0 {
		l.seal()
	}
}

// seal ends the message that is being filled, so that it is sent; w.mu is held.
func (l *lane) seal() {
	if l.filling == nil {
		return
	}
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.queue = append(l.queue, l.filling)
	l.filling = nil
	l.signal()
}

// waiting are the messages that are not answered, without the one that is being filled; w.mu is held.
func (l *lane) waiting() []*pending {
	found := append([]*pending(nil), l.inFlight...)
	return append(append(found, l.queue...), l.delayed...)
}

// next returns the next new message, if the window has room for it. isLast says that none will come; w.mu is not held.
func (l *lane) next() (message *pending, isLast bool) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if len(l.queue) > 0 && len(l.inFlight) < l.w.options.InFlight {
		message, l.queue[0] = l.queue[0], nil
		l.queue = l.queue[1:]
		l.inFlight = append(l.inFlight, message)
		return message, false
	}
	return nil, l.w.closed && len(l.queue)+len(l.inFlight)+len(l.delayed) == 0
}

// acknowledge takes the answer to the oldest message. isFinal: no event of it is sent again. Only the goroutine of the
// stream calls it.
func (l *lane) acknowledge(outcome *pb.UsageOutcome, isFinal bool) *Error {
	w := l.w
	w.mu.Lock()
	if len(l.inFlight) == 0 || l.inFlight[0].batchID != outcome.GetBatchId() {
		isEnded := w.failure != nil
		w.mu.Unlock()
		if isEnded {
			return nil
		}
		sentence := fmt.Sprintf("the server answered batch %q, which is not the oldest one", outcome.GetBatchId())
		return &Error{Code: codes.Internal, Message: sentence}
	}
	message := l.inFlight[0]
	w.mu.Unlock()

	refused := map[int]*Error{}
	var later []int // the events that the server may record later
	for _, one := range outcome.GetRejected() {
		err := ErrorOfStatus(one.GetStatus())
		index := int(one.GetIndex())
		if index < 0 || index >= len(message.events) {
			sentence := fmt.Sprintf("the server rejected event %d of %d", index, len(message.events))
			return &Error{Code: codes.Internal, Message: sentence}
		}
		isTemporary := err.Code == codes.Internal || err.Code == codes.Unavailable
		if isTemporary && !isFinal && message.tries+1 < maxTries {
			later = append(later, index)
		} else {
			refused[index] = err
		}
	}
	// The functions of the program come first: after Flush, everything has been reported.
	l.report(message, outcome, refused)

	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failure != nil { // the message was abandoned
		return nil
	}
	l.inFlight[0] = nil
	l.inFlight = l.inFlight[1:]
	l.answered++
	w.counts.Acknowledged += int64(outcome.GetAccepted()) + int64(outcome.GetDuplicates())
	w.counts.Duplicates += int64(outcome.GetDuplicates())
	w.counts.Rejected += int64(len(refused))
	w.counts.Pending -= int64(len(message.events))
	w.bytes -= message.size
	if len(later) > 0 {
		message.again = l.sendLater(message, later)
	}
	for index, ack := range message.acks {
		if err, ok := refused[index]; ok {
			ack.finish(nil, err)
		} else {
			ack.finish(outcome, nil)
		}
	}
	close(message.done)
	l.signal()
	w.note()
	return nil
}

// sendLater takes events out of a message and sends them again, after a pause; w.mu is held.
func (l *lane) sendLater(message *pending, indexes []int) *pending {
	w := l.w
	again := l.newPending(message.tries + 1)
	for _, index := range indexes {
		again.add(message.events[index], message.acks[index])
		delete(message.acks, index)
	}
	w.counts.Pending += int64(len(again.events))
	w.bytes += again.size
	l.delayed = append(l.delayed, again)
	time.AfterFunc(w.options.retryPause, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for at, one := range l.delayed {
			if one == again {
				l.delayed = append(l.delayed[:at], l.delayed[at+1:]...)
				l.queue = append(l.queue, again)
				l.signal()
				return
			}
		}
	})
	return again
}

// report calls the functions of the program; w.mu is not held.
func (l *lane) report(message *pending, outcome *pb.UsageOutcome, refused map[int]*Error) {
	options := &l.w.options
	l.w.call(func() {
		for index, err := range refused {
			if _, ok := message.acks[index]; ok {
				continue
			}
			event := &pb.UsageEvent{}
			if proto.Unmarshal(message.events[index], event) == nil { // it was encoded here
				options.OnRejected(event, err)
			}
		}
		if options.OnCrossing != nil {
			for _, one := range outcome.GetTransitions() {
				options.OnCrossing(one)
			}
		}
		if options.OnOutcome != nil {
			options.OnOutcome(outcome)
		}
	})
}

// abandon fails the acknowledgements of all messages; w.mu is held.
func (l *lane) abandon(err *Error) {
	all := l.waiting()
	if l.filling != nil {
		all = append(all, l.filling)
	}
	l.filling, l.queue, l.inFlight, l.delayed = nil, nil, nil, nil
	for _, one := range all {
		abandon(one, err)
	}
	l.signal()
}

func abandon(message *pending, err *Error) {
	for _, ack := range message.acks {
		ack.finish(nil, err)
	}
	close(message.done)
}
