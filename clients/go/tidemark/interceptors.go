package tidemark

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// outgoing adds what each call carries: the API key, if there is one, and the metadata of the target.
func (t *target) outgoing(ctx context.Context) context.Context {
	own := t.metadata
	if t.apiKey != "" {
		own = metadata.Join(own, metadata.Pairs("authorization", "Bearer "+t.apiKey))
	}
	if len(own) == 0 {
		return ctx
	}
	given, _ := metadata.FromOutgoingContext(ctx)
	return metadata.NewOutgoingContext(ctx, metadata.Join(given, own))
}

// unary gives a call with one answer a deadline, and its errors their type.
func (t *target) unary(
	ctx context.Context, method string, request, reply interface{}, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
	options ...grpc.CallOption,
) error {
	if _, ok := ctx.Deadline(); !ok && t.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.timeout)
		defer cancel()
	}
	var trailer metadata.MD
	options = append([]grpc.CallOption{grpc.Trailer(&trailer)}, options...)
	err := invoke(t.outgoing(ctx), method, request, reply, conn, options...)
	return errorOfCall(err, trailer)
}

// stream gives the errors of a stream their type.
func (t *target) stream(
	ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer,
	options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	opened, err := open(t.outgoing(ctx), desc, conn, method, options...)
	if err != nil {
		return nil, errorOfCall(err, nil)
	}
	return &typedStream{ClientStream: opened}, nil
}

// typedStream is a stream whose errors are of the type Error.
type typedStream struct{ grpc.ClientStream }

// RecvMsg receives one message; io.EOF says that the call has ended with OK.
func (s *typedStream) RecvMsg(message interface{}) error {
	err := s.ClientStream.RecvMsg(message)
	if err == nil {
		return nil
	}
	return errorOfCall(err, s.ClientStream.Trailer())
}

// SendMsg sends one message; io.EOF says that the call has ended, and RecvMsg returns how.
func (s *typedStream) SendMsg(message interface{}) error {
	return errorOfCall(s.ClientStream.SendMsg(message), nil)
}
