"""The rows of the metrics page about jobs. Called by metrics.py; every name is explained in docs/operations.md."""

from dragoman.core.jobs import Phase
from dragoman.server.exposition import Exposition
from dragoman.serving.jobs.metering import Metering


def add_jobs(page: Exposition, metering: Metering) -> None:
    page.family("dragoman_jobs", "gauge", "Jobs that are kept, by phase; those that have ended until they are deleted.")
    for phase in Phase:
        page.sample(metering.phases.get(phase, 0), {"phase": phase.value})
    page.family("dragoman_job_running_seconds_total", "counter", "Seconds of running of all jobs, deleted ones included.")
    page.sample(metering.seconds, {})
    page.family("dragoman_job_calls_total", "counter", "Requests that were passed to programs of jobs, deleted ones included.")
    page.sample(metering.calls, {})
    page.family("dragoman_job_waiting_requests", "gauge", "Requests that wait in the queues of jobs.")
    page.sample(metering.waiting, {})
    page.family("dragoman_job_memory_bytes", "gauge", "Memory of all processes of all jobs.")
    page.sample(metering.memory, {})
