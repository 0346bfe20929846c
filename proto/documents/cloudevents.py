"""The route of CloudEvents in the OpenAPI document: it is no method of the contract."""

from typing import Any

Json = dict[str, Any]

EVENTS_PATH = "/v1/events"
EVENTS_TAG = "CloudEvents"

_SUMMARY = """\
Counts CloudEvents 1.0 as usage, by EvaluateUsageBatch: one or a batch in JSON, or one whose
attributes are headers that begin with ce-. source and id together are the identity of an event, which counts once
however often it is sent; its time and its subject must be the same each time. docs/http.md says what of an event
becomes which field of usage.

A single event that is rejected is an error. A batch is answered 200 with the outcome of each event, or 503 if one of
them could not be recorded: send the whole batch again.
"""

_EVENT: Json = {
    "type": "object",
    "description": "A CloudEvent in JSON. Extensions are further members.",
    "properties": {
        "specversion": {"type": "string", "const": "1.0"},
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "minLength": 1},
        "type": {"type": "string", "minLength": 1, "description": "By convention, the metric."},
        "subject": {"type": "string", "description": "By convention, the customer."},
        "time": {"type": "string", "format": "date-time"},
        "datacontenttype": {"type": "string"},
        "data": {"description": "By convention, quantity, cost, currency, and properties."},
        "data_base64": {"type": "string", "contentEncoding": "base64"},
    },
    "required": ["specversion", "id", "source", "type"],
    "additionalProperties": True,
}

_OUTCOME: Json = {
    "type": "object",
    "description": "What became of the events of one request.",
    "properties": {
        "accepted": {"type": "integer", "description": "The events that this request counted."},
        "duplicates": {"type": "integer", "description": "The events that had been counted before."},
        "rejected": {"type": "integer", "description": "The events that were not counted."},
        "events": {
            "type": "array",
            "description": "The outcome of each event, in the order of the request.",
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "string", "description": "The id of the event."},
                    "eventId": {"type": "string", "description": "The event_id of its usage event."},
                    "status": {"type": "string", "enum": ["COUNTED", "REJECTED"]},
                    "error": {"$ref": "#/components/schemas/Error/properties/error"},
                },
                "required": ["status"],
            },
        },
        "transitions": {"type": "array", "items": {"$ref": "#/components/schemas/Transition"}},
        "overLimits": {"type": "array", "items": {"$ref": "#/components/schemas/LimitState"}},
        "omitted": {"$ref": "#/components/schemas/OmittedResults"},
    },
    "required": ["accepted", "duplicates", "rejected", "events"],
}

EVENT_SCHEMAS = {"CloudEvent": _EVENT, "CloudEventsOutcome": _OUTCOME}

_ANSWER: Json = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/CloudEventsOutcome"}}}}

EVENTS_OPERATION: Json = {
    "operationId": "CountCloudEvents",
    "tags": [EVENTS_TAG],
    "description": _SUMMARY,
    "parameters": [],
    "requestBody": {
        "required": True,
        "content": {
            "application/cloudevents+json": {"schema": {"$ref": "#/components/schemas/CloudEvent"}},
            "application/cloudevents-batch+json": {
                "schema": {"type": "array", "items": {"$ref": "#/components/schemas/CloudEvent"}}
            },
            "application/json": {"schema": {"description": "The data of an event whose attributes are headers."}},
        },
    },
    "responses": {
        "200": {"description": "The outcome of each event.", **_ANSWER},
        "503": {"description": "An event could not be recorded: send all of them again.", **_ANSWER},
        "default": {"$ref": "#/components/responses/Error"},
    },
}
