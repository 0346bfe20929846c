package tidemark

import (
	"context"
	"fmt"
	"io"
	"log"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "tidemark.dev/api/tidemark/v1"
)

// watchSilence is without a notification or a heartbeat: then a stream counts as broken. Heartbeats come every 15 s.
const watchSilence = 60 * time.Second

// WatchOptions say which notifications a watcher hands over, and where it begins.
type WatchOptions struct {
	// Only notifications of these; empty: of all.
	CustomerIDs, AlertIDs []string
	ConditionTypes        []pb.ConditionType
	EventTypes            []pb.EventType
	// StartTime is where to begin without a token; zero: now.
	StartTime time.Time
	// Tokens keeps the position; nil: in memory.
	Tokens TokenStore
	// OnInterruption gets a sentence whenever a stream broke; nil: it is logged.
	OnInterruption func(string)
}

// Position is a notification, or a heartbeat without one, and the token that begins right after it.
type Position struct {
	Notification *pb.Notification
	ResumeToken  string
}

// Watcher hands over notifications in the order of their commits, each once, through restarts of servers and lost
// connections.
type Watcher struct {
	client  *Client
	options WatchOptions
}

// Watcher makes a watcher. Nothing is sent before Run or Positions.
func (c *Client) Watcher(options WatchOptions) *Watcher {
	if options.Tokens == nil {
		options.Tokens = &MemoryTokens{}
	}
	if options.OnInterruption == nil {
		options.OnInterruption = func(sentence string) {
			log.Printf("tidemark: the notification stream was interrupted: %s", sentence)
		}
	}
	return &Watcher{client: c, options: options}
}

// Run calls the handler with every notification, one after the other, until the context ends or something fails. It
// keeps the position when the handler has returned nil. So a program that stops in the middle of a notification gets
// that one again: make its effect harmless to repeat, by NotificationId; or use Positions, and keep the token in the
// transaction of the effect.
//
// It returns the error of the context, of the handler or of the TokenStore, or an *Error where a new stream would fail in
// the same way: its Reason is RESUME_TOKEN_EXPIRED if notifications after the kept position have been deleted because of
// their age.
func (w *Watcher) Run(ctx context.Context, handle func(context.Context, *pb.Notification) error) error {
	return w.Positions(ctx, func(ctx context.Context, position Position) error {
		if position.Notification != nil {
			if err := handle(ctx, position.Notification); err != nil {
				return err
			}
		}
		return w.options.Tokens.Save(ctx, position.ResumeToken)
	})
}

// Positions calls the handler with every notification and every heartbeat. The handler keeps the token; the watcher only
// reads the TokenStore once, at the beginning. It returns as Run does.
func (w *Watcher) Positions(ctx context.Context, handle func(context.Context, Position) error) error {
	token, err := w.options.Tokens.Load(ctx)
	if err != nil {
		return err
	}
	pauses := newPauses(firstPause, longestPause)
	for {
		hasAnswered, failure := false, error(nil)
		err := w.stream(ctx, token, func(answer *pb.WatchNotificationsResponse) error {
			hasAnswered = true
			failure = handle(ctx, Position{answer.GetNotification(), answer.GetResumeToken()})
			if failure == nil {
				token = answer.GetResumeToken()
			}
			return failure
		})
		if failure != nil {
			return failure
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if hasAnswered {
			pauses.reset()
		}
		// A server that shuts down ends the stream without an error, and another server takes the next stream.
		if err != nil {
			found := asError(err)
			if w.client.conn.GetState() == connectivity.Shutdown {
				return &Error{Code: codes.Canceled, Message: "the client was closed", cause: ErrClosed}
			}
			if found.RetryAfter == nil && !isPassing(found.Code) {
				return found
			}
			w.options.OnInterruption(found.Message)
		}
		if err := sleep(ctx, pauses.failed()); err != nil {
			return err
		}
	}
}

// stream calls the handler with each answer of one stream. It returns nil when the server ends it.
func (w *Watcher) stream(
	ctx context.Context, token string, handle func(*pb.WatchNotificationsResponse) error,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := w.client.Alerts.WatchNotifications(ctx, w.request(token))
	if err != nil {
		return err
	}
	var isSilent int32
	silence := time.AfterFunc(watchSilence, func() {
		atomic.StoreInt32(&isSilent, 1)
		cancel()
	})
	defer silence.Stop()
	for {
		answer, err := stream.Recv()
		silence.Stop() // the time of the handler does not count
		switch {
		case err == io.EOF:
			return nil
		case err != nil && atomic.LoadInt32(&isSilent) == 1:
			sentence := fmt.Sprintf("the server was silent for %v", watchSilence)
			return &Error{Code: codes.Unavailable, Message: sentence}
		case err != nil:
			return err
		}
		if err := handle(answer); err != nil {
			return err
		}
		silence.Reset(watchSilence)
	}
}

func (w *Watcher) request(token string) *pb.WatchNotificationsRequest {
	request := &pb.WatchNotificationsRequest{
		ResumeToken:    token,
		CustomerIds:    w.options.CustomerIDs,
		AlertIds:       w.options.AlertIDs,
		ConditionTypes: w.options.ConditionTypes,
		EventTypes:     w.options.EventTypes,
	}
	if token == "" && !w.options.StartTime.IsZero() {
		request.StartTime = timestamppb.New(w.options.StartTime)
	}
	return request
}
