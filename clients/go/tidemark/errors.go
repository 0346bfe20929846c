package tidemark

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	reasonPrefix = "ERROR_REASON_"
	requestIDKey = "x-request-id"
)

var (
	// ErrConnectionLost says that no server answered in all the time that a writer may try, or before it was closed.
	// errors.Is finds it in an Error.
	ErrConnectionLost = errors.New("tidemark: no server answered")
	// ErrClosed says that a writer or a guard takes nothing more, because the program has closed it.
	ErrClosed = errors.New("tidemark: closed")
)

// Error is a failed call. errors.As finds it in every error of a call; status.Code gives its code, too.
type Error struct {
	// Code is the status code of gRPC.
	Code codes.Code
	// Message is a sentence for people.
	Message string
	// Reason says why, for programs: a name of tidemarkv1.ErrorReason without its prefix, such as ALERT_NOT_FOUND.
	// Empty if no server of Tidemark answered.
	Reason string
	// Metadata belongs to the reason, such as the id that was not found.
	Metadata map[string]string
	// Violations are the bad fields of the request.
	Violations []FieldViolation
	// RetryAfter is after how long the server asks for a new try; nil if it does not ask for one.
	RetryAfter *time.Duration
	// RequestID is that of the call in the logs of the server. Empty if no server answered.
	RequestID string

	status *status.Status
	cause  error
}

// FieldViolation is one bad field: its path in the request, such as alert.thresholds[2].value, and the problem.
type FieldViolation struct {
	Field, Description string
}

// Error returns the message, the violations that it does not contain, the reason and the id of the request.
func (e *Error) Error() string {
	parts := []string{e.Message}
	for _, one := range e.Violations {
		if !strings.Contains(e.Message, one.Description) {
			parts = append(parts, one.Field+": "+one.Description)
		}
	}
	name := e.Reason
	if name == "" {
		name = e.Code.String()
	}
	text := fmt.Sprintf("%s [%s]", strings.Join(parts, "; "), name)
	if e.RequestID != "" {
		text += " (request " + e.RequestID + ")"
	}
	return text
}

// GRPCStatus returns the status of gRPC, so that status.Code and status.FromError work.
func (e *Error) GRPCStatus() *status.Status {
	if e.status != nil {
		return e.status
	}
	return status.New(e.Code, e.Message)
}

// Unwrap returns ErrConnectionLost where no server answered in time.
func (e *Error) Unwrap() error { return e.cause }

// Is says whether both have the same code and reason. So errors.Is(err, &tidemark.Error{Code: codes.NotFound}) asks for
// a code, and with a Reason also for that. It is for targets that have nothing else.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Message == "" && other.Code == e.Code && (other.Reason == "" || other.Reason == e.Reason)
}

// errorOfCall makes an Error of an error of gRPC. An error that has no status, such as io.EOF, is returned as it is.
func errorOfCall(err error, trailer metadata.MD) error {
	if err == nil {
		return nil
	}
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	found, ok := status.FromError(err)
	if !ok {
		return err
	}
	made := errorOfStatus(found)
	if ids := trailer.Get(requestIDKey); len(ids) > 0 {
		made.RequestID = ids[0]
	}
	switch {
	case made.Code == codes.DeadlineExceeded:
		made.cause = context.DeadlineExceeded
	case made.Code == codes.Canceled:
		made.cause = context.Canceled
	}
	return made
}

// ErrorOfStatus makes an Error of a status within an answer, such as that of a rejected event.
func ErrorOfStatus(rejected *spb.Status) *Error {
	return errorOfStatus(status.FromProto(rejected))
}

func errorOfStatus(found *status.Status) *Error {
	made := &Error{Code: found.Code(), Message: found.Message(), status: found}
	if made.Message == "" {
		made.Message = made.Code.String()
	}
	for _, detail := range found.Details() {
		switch one := detail.(type) {
		case *errdetails.ErrorInfo:
			made.Reason = strings.TrimPrefix(one.GetReason(), reasonPrefix)
			made.Metadata = one.GetMetadata()
		case *errdetails.RetryInfo:
			delay := one.GetRetryDelay()
			after := time.Duration(delay.GetSeconds())*time.Second + time.Duration(delay.GetNanos())
			made.RetryAfter = &after
		case *errdetails.BadRequest:
			for _, bad := range one.GetFieldViolations() {
				made.Violations = append(made.Violations, FieldViolation{bad.GetField(), bad.GetDescription()})
			}
		}
	}
	return made
}

// lost makes the error of a connection that was lost for good.
func lost(sentence string) *Error {
	return &Error{Code: codes.Unavailable, Message: sentence, cause: ErrConnectionLost}
}

// asError returns the Error in an error of a call, or one without details.
func asError(err error) *Error {
	var found *Error
	if errors.As(err, &found) {
		return found
	}
	return &Error{Code: status.Code(err), Message: err.Error(), cause: err}
}

// isPassing says whether a new stream can succeed after this. gRPC also reports a connection that was cut in the middle
// of a frame as INTERNAL.
func isPassing(code codes.Code) bool {
	switch code {
	case codes.Unavailable, codes.Canceled, codes.Internal, codes.Unknown, codes.DeadlineExceeded:
		return true
	}
	return false
}

// isServerFault says whether a server reports that it failed itself, and not that it could not be reached.
func isServerFault(code codes.Code) bool {
	return code == codes.Internal || code == codes.Unknown || code == codes.DataLoss
}
