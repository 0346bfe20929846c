package tidemark

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"

	pb "tidemark.dev/api/tidemark/v1"
)

const (
	methodEvaluateUsage = "/tidemark.v1.AlertService/EvaluateUsage"
	// maxFaults is how many streams in a row may end with a fault of the server over the same message.
	maxFaults = 3
	// longestDelay is how long a server may ask the client to wait.
	longestDelay = 60 * time.Second
)

var evaluateUsage = grpc.StreamDesc{StreamName: "EvaluateUsage", ServerStreams: true, ClientStreams: true}

// interruption is why a stream ended before every message was answered.
type interruption struct {
	sentence string
	delay    time.Duration // that the server asks for
	isFault  bool          // the server failed itself
}

// run opens one stream after another until the writer ends. A lane without messages opens none: servers limit their
// number.
func (l *lane) run() {
	l.alive = time.Now()
	for l.waitForMessages() {
		answered, alive := l.answered, l.alive
		broken, err := l.stream()
		if err == nil && broken != nil && l.w.client.conn.GetState() == connectivity.Shutdown {
			err = lost("the client was closed before its usage writer")
		}
		if l.w.ctx.Err() != nil {
			return
		}
		if err == nil && broken != nil {
			err = l.recover(broken, answered != l.answered, l.alive.After(alive))
		}
		if err != nil {
			l.w.fail(err)
			return
		}
	}
}

// waitForMessages returns false when the writer has ended.
func (l *lane) waitForMessages() bool {
	for {
		l.w.mu.Lock()
		count, isClosed := len(l.queue)+len(l.inFlight), l.w.closed
		l.w.mu.Unlock()
		if count > 0 {
			return true
		}
		if isClosed {
			return false
		}
		select {
		case <-l.wake:
		case <-l.w.ctx.Done():
			return false
		}
	}
}

// stream sends the messages that are not answered again, then new ones, over one stream. It returns why the stream
// ended, or neither if there was nothing more to send, or an error that a new stream would not change.
func (l *lane) stream() (*interruption, *Error) {
	ctx, cancel := context.WithCancel(l.w.ctx)
	defer cancel()
	stream, err := l.w.client.conn.NewStream(ctx, &evaluateUsage, methodEvaluateUsage, grpc.ForceCodec(rawCodec{}))
	if err != nil {
		return interrupted(err)
	}
	writing, stop := context.WithCancel(ctx)
	written := make(chan struct{})
	go func() {
		defer close(written)
		l.write(writing, stream)
	}()
	defer func() {
		cancel()
		<-written
	}()

	var isSilent int32
	silence := time.AfterFunc(l.w.options.silence, func() {
		atomic.StoreInt32(&isSilent, 1)
		cancel()
	})
	defer silence.Stop()
	isGoingAway := false
	for {
		response := &pb.EvaluateUsageResponse{}
		if err := stream.RecvMsg(response); err != nil {
			stop()
			if err == io.EOF || isGoingAway {
				return l.ended(), nil
			}
			if atomic.LoadInt32(&isSilent) == 1 {
				return &interruption{sentence: fmt.Sprintf("the server was silent for %v", l.w.options.silence)}, nil
			}
			return interrupted(err)
		}
		l.alive = time.Now()
		silence.Reset(l.w.options.silence)
		if response.GetGoingAway() {
			// No answer follows. The server ends the stream.
			isGoingAway = true
			stop()
			silence.Reset(l.w.options.farewell)
		} else if !response.GetHeartbeat() {
			if err := l.acknowledge(response.GetOutcome(), false); err != nil {
				stop()
				return nil, err
			}
		}
	}
}

// write sends messages until the context ends. RecvMsg finds what fails here.
func (l *lane) write(ctx context.Context, stream grpc.ClientStream) {
	l.w.mu.Lock()
	unanswered := append([]*pending(nil), l.inFlight...)
	l.w.mu.Unlock()
	for _, message := range unanswered {
		l.countResent(len(message.events))
		if ctx.Err() != nil || stream.SendMsg(l.request(message)) != nil {
			return
		}
	}
	for ctx.Err() == nil {
		message, isLast := l.next()
		switch {
		case message != nil:
			if stream.SendMsg(l.request(message)) != nil {
				return
			}
		case isLast:
			_ = stream.CloseSend() // it returns nil always
			return
		default:
			select {
			case <-l.wake:
			case <-ctx.Done():
			}
		}
	}
}

func (l *lane) request(message *pending) rawMessage {
	return encodedRequest(message.batchID, message.events, l.w.answers)
}

func (l *lane) countResent(events int) {
	l.w.mu.Lock()
	l.w.counts.Resent += int64(events)
	l.w.mu.Unlock()
}

// ended is the interruption of a stream that the server ended without an error; nil if nothing waits for an answer.
func (l *lane) ended() *interruption {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if len(l.inFlight)+len(l.queue) == 0 {
		return nil
	}
	return &interruption{sentence: "the server is shutting down or restarting"}
}

// interrupted is the interruption by an error, or the error if a new stream would end in the same way.
func interrupted(err error) (*interruption, *Error) {
	found := asError(err)
	if found.RetryAfter == nil && !isPassing(found.Code) && found.Code != codes.Aborted {
		return nil, found
	}
	broken := &interruption{sentence: found.Message, isFault: isServerFault(found.Code)}
	if found.RetryAfter != nil {
		broken.delay = *found.RetryAfter
	}
	return broken, nil
}

// recover waits before the next stream. After three faults over one message it looks for the event that causes them:
// sent again without end, its message would hold up all later ones.
func (l *lane) recover(broken *interruption, hasAnswered, hasBeenAlive bool) *Error {
	switch {
	case !broken.isFault:
		l.faults = 0
	case hasAnswered:
		l.faults = 1
	default:
		l.faults++
	}
	sentence := broken.sentence
	if l.faults >= maxFaults {
		l.w.call(func() {
			l.w.options.OnInterruption(sentence + "; searching the message for the event that causes it")
		})
		isFound, err := l.isolate()
		if err != nil {
			return err
		}
		if isFound {
			l.faults = 0
			l.pauses.reset()
			return nil
		}
	}
	patience := l.w.options.Patience
	if hasBeenAlive {
		// The patience begins now: a stream that fell silent has used up as much time already.
		l.alive = time.Now()
		l.pauses.reset()
	} else if patience > 0 && time.Since(l.alive) > patience {
		return lost(sentence)
	}
	l.w.call(func() { l.w.options.OnInterruption(sentence) })
	longest := longestDelay
	if patience > 0 && patience < longest {
		longest = patience
	}
	// The delay of the server can only lengthen the pause: a server that always asks for 0 would cause a busy loop.
	pause := l.pauses.failed()
	delay := broken.delay
	if delay > longest {
		delay = longest
	}
	if delay > pause {
		pause = delay
	}
	_ = sleep(l.w.ctx, pause) // the caller looks whether the writer has ended
	return nil
}
