package tidemark

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"time"
)

// WebhookEvent is one event. Ignore an ID that the program has seen before: delivery is at least once. The body of a
// Notification has the same form.
type WebhookEvent struct {
	// ID is that of the header webhook-id.
	ID string
	// Type is such as alert.reached; new ones may be added.
	Type string
	// Time is when it was found.
	Time time.Time
	// Data is what happened, as docs/events describes it; new fields may be added. Its numbers are json.Number.
	Data map[string]interface{}
}

// ReportedTransition is one threshold that was reached or resolved.
type ReportedTransition struct {
	// Kind is REACHED or RESOLVED.
	Kind string
	// Level is of the threshold, Value of the gauge: decimal strings.
	Level, Value string
	// Code and Severity are those of the threshold.
	Code, Severity string
	// Fields are all of it as it came.
	Fields map[string]interface{}
}

// ParseWebhookEvent reads the event of a body that was verified.
func ParseWebhookEvent(id string, body []byte) (*WebhookEvent, error) {
	var found struct {
		ID        *string                `json:"id"`
		Type      *string                `json:"type"`
		Timestamp *string                `json:"timestamp"`
		Data      map[string]interface{} `json:"data"`
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&found); err != nil {
		return nil, errors.New("it is not JSON of an event (" + err.Error() + ")")
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("something follows it")
	}
	if found.Type == nil || found.Timestamp == nil || found.Data == nil {
		return nil, errors.New("type, timestamp or data is missing")
	}
	at, err := time.Parse(time.RFC3339Nano, *found.Timestamp)
	if err != nil {
		return nil, err
	}
	if found.ID != nil {
		id = *found.ID // the header is signed, as the body is; they say the same
	}
	return &WebhookEvent{ID: id, Type: *found.Type, Time: at, Data: found.Data}, nil
}

// IsTest says whether the event is an example, and nothing has happened.
func (e *WebhookEvent) IsTest() bool {
	isTest, _ := e.Data["test"].(bool)
	return isTest
}

// AlertID is the alert; empty if the event is about something else.
func (e *WebhookEvent) AlertID() string { return text(e.Data, "alert_id") }

// CustomerID is the customer; empty if the event is about no single one.
func (e *WebhookEvent) CustomerID() string { return text(e.Data, "customer_id") }

// Value is that of the gauge, a decimal string; empty if the event is not about a gauge.
func (e *WebhookEvent) Value() string { return text(e.Data, "value") }

// PreviousValue is the value before, a decimal string; empty if the event is not about a gauge.
func (e *WebhookEvent) PreviousValue() string { return text(e.Data, "previous_value") }

// Sequence is the number of the event among those of the same alert and gauge: the higher one is newer. 0: it has none.
func (e *WebhookEvent) Sequence() int64 {
	written := text(e.Data, "sequence")
	if number, ok := e.Data["sequence"].(json.Number); ok {
		written = number.String()
	}
	number, err := strconv.ParseInt(written, 10, 64)
	if err != nil {
		return 0
	}
	return number
}

// Transitions are the thresholds that were reached or resolved, in order.
func (e *WebhookEvent) Transitions() []ReportedTransition {
	var found []ReportedTransition
	list, _ := e.Data["transitions"].([]interface{})
	for _, one := range list {
		fields, ok := one.(map[string]interface{})
		if !ok {
			continue
		}
		threshold, _ := fields["threshold"].(map[string]interface{})
		found = append(found, ReportedTransition{
			Kind:     text(fields, "kind"),
			Level:    text(fields, "level"),
			Value:    text(fields, "value"),
			Code:     text(threshold, "code"),
			Severity: text(threshold, "severity"),
			Fields:   fields,
		})
	}
	return found
}

func text(fields map[string]interface{}, name string) string {
	found, _ := fields[name].(string)
	return found
}
