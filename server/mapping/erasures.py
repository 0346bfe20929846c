"""Erasure jobs as the API shows them."""

from generated.tidemark.v1 import erasure_job_pb2
from server.calls.validation import to_timestamp
from store.erasures.jobs import ErasureJob
from store.erasures.steps import STEPS


def erasure_job_message(job: ErasureJob) -> erasure_job_pb2.ErasureJob:
    """A job that erases a customer. Its last step is the deletion of the customer itself, which ends the job."""
    total = len(STEPS) + 1
    message = erasure_job_pb2.ErasureJob(
        job_id=job.job_id,
        customer_id=job.customer_id or "",
        pseudonym=job.pseudonym,
        state=erasure_job_pb2.ErasureState.Value(f"ERASURE_STATE_{job.state}"),
        completed_steps=job.step if job.finish_time is None else total,
        total_steps=total,
        deleted_count=job.deleted_count,
        pseudonymised_count=job.pseudonymised_count,
        create_time=to_timestamp(job.create_time),
    )
    if job.finish_time is not None:
        message.finish_time.CopyFrom(to_timestamp(job.finish_time))
    return message
