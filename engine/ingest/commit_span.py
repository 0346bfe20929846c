"""The span of a commit. A commit serves several calls: it is a part of the first sampled one, and refers to all."""

from engine.ingest.group import CommitGroup
from runtime.tracing import spans
from runtime.tracing.spans import NO_SPAN, Kind, Span


def begin(organization_id: int, group: CommitGroup) -> Span:
    """The span of the commit of a group; it records nothing while tracing is off, or no call has a trace.

    Its parent is the call that it serves, or the first one that is sampled, so that the decision of that call's
    sampler stands. Its links are all calls that it serves.
    """
    if not spans.are_recorded() or not group.is_traced:
        return NO_SPAN
    traces = group.traces()
    return spans.begin(
        "commit",
        Kind.INTERNAL,
        next((trace for trace in traces if trace.is_sampled), traces[0]),
        links=traces,
        attributes={
            "tidemark.organization_id": organization_id,
            "tidemark.commit.batches": len(group.batches),
            "tidemark.commit.events": len(group.events),
        },
    )
