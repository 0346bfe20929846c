package tidemark

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "tidemark.dev/api/tidemark/v1"
)

const (
	maxBatchEvents = 5_000       // of one message, as the contract says
	maxBatchBytes  = 2 << 20     // of one message; a server accepts 4 MiB by default
	maxEventBytes  = 1024 * 1024 // of one event; the bounds of the contract allow about 30 KiB

	// Fields of EvaluateUsageRequest, EvaluateUsageBatchRequest and UsageBatch.
	fieldBatch          protowire.Number = 1
	fieldBatchID        protowire.Number = 1
	fieldEvents         protowire.Number = 2
	fieldIncludeGauges  protowire.Number = 3
	fieldMaxAnswerBytes protowire.Number = 4
)

var (
	eventPrefix string
	eventNumber uint64
)

func init() {
	var random [12]byte
	if _, err := rand.Read(random[:]); err != nil {
		panic("tidemark: no random numbers for the ids of events: " + err.Error())
	}
	eventPrefix = hex.EncodeToString(random[:])
}

// NewEventID returns an id that no other process makes: 96 random bits, and a number.
func NewEventID() string {
	return fmt.Sprintf("%s-%x", eventPrefix, atomic.AddUint64(&eventNumber, 1))
}

// NewEvent makes one use of a metric: with a new id, and with the present as its time. quantity is a decimal string.
// Set more fields as needed. If the program may send the event again after a restart, set EventId and EventTime: the
// same event has the same id and the same time.
func NewEvent(customerID, metricID, quantity string) *pb.UsageEvent {
	return &pb.UsageEvent{
		EventId:    NewEventID(),
		CustomerId: customerID,
		MetricId:   metricID,
		Quantity:   quantity,
		EventTime:  timestamppb.Now(),
	}
}

// encoded returns the event in the form of the wire. One without an id or a time gets them, in the message itself, too.
func encoded(event *pb.UsageEvent) ([]byte, error) {
	if event.EventId == "" {
		event.EventId = NewEventID()
	}
	if event.EventTime == nil {
		event.EventTime = timestamppb.Now()
	}
	content, err := proto.Marshal(event)
	if err != nil {
		return nil, fmt.Errorf("tidemark: usage event %.128s: %w", event.EventId, err)
	}
	if len(content) > maxEventBytes {
		return nil, fmt.Errorf("tidemark: usage event %.128s is larger than %d bytes", event.EventId, maxEventBytes)
	}
	return content, nil
}

// answerOptions say what answers contain.
type answerOptions struct {
	includeGauges bool
	maxBytes      int
}

// encodedRequest makes an EvaluateUsageRequest, or an EvaluateUsageBatchRequest, which has the same form, of encoded
// events: encoded with its message, an event would be encoded again for every repetition.
func encodedRequest(batchID string, events [][]byte, options answerOptions) rawMessage {
	size := protowire.SizeTag(fieldBatchID) + protowire.SizeBytes(len(batchID))
	for _, event := range events {
		size += protowire.SizeTag(fieldEvents) + protowire.SizeBytes(len(event))
	}
	if options.includeGauges {
		size += protowire.SizeTag(fieldIncludeGauges) + protowire.SizeVarint(1)
	}
	if options.maxBytes > 0 {
		size += protowire.SizeTag(fieldMaxAnswerBytes) + protowire.SizeVarint(uint64(options.maxBytes))
	}
	request := make([]byte, 0, protowire.SizeTag(fieldBatch)+protowire.SizeBytes(size))
	request = protowire.AppendTag(request, fieldBatch, protowire.BytesType)
	request = protowire.AppendVarint(request, uint64(size))
	request = protowire.AppendTag(request, fieldBatchID, protowire.BytesType)
	request = protowire.AppendString(request, batchID)
	for _, event := range events {
		request = protowire.AppendTag(request, fieldEvents, protowire.BytesType)
		request = protowire.AppendBytes(request, event)
	}
	if options.includeGauges {
		request = protowire.AppendTag(request, fieldIncludeGauges, protowire.VarintType)
		request = protowire.AppendVarint(request, 1)
	}
	if options.maxBytes > 0 {
		request = protowire.AppendTag(request, fieldMaxAnswerBytes, protowire.VarintType)
		request = protowire.AppendVarint(request, uint64(options.maxBytes))
	}
	return request
}

// rawMessage is a message that is encoded already.
type rawMessage []byte

// rawCodec is the codec of protobuf, which also takes messages that are encoded already.
type rawCodec struct{}

// Marshal returns the encoded message.
func (rawCodec) Marshal(message interface{}) ([]byte, error) {
	switch one := message.(type) {
	case rawMessage:
		return one, nil
	case proto.Message:
		return proto.Marshal(one)
	}
	return nil, fmt.Errorf("tidemark: %T is no message of protobuf", message)
}

// Unmarshal decodes a message.
func (rawCodec) Unmarshal(content []byte, message interface{}) error {
	one, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("tidemark: %T is no message of protobuf", message)
	}
	return proto.Unmarshal(content, one)
}

// Name is that of the content type.
func (rawCodec) Name() string { return "proto" }
