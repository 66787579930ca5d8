"""Jobs and projects as FloydHub's client reads them, whose schemas are strict (sheet, section 8). Pure.

Ids of resources say what they are of: log.JOB, JOB.home and JOB.output are a job's; code.MODULE and the id of a version have been uploaded.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dragoman.core.jobs import Job, Mode, Phase, Seen
from dragoman.serving.jobs.records import Project

TASK_MODES: Mapping[Mode, str] = {Mode.SERVE: "serving", Mode.JUPYTER: "jupyter", Mode.COMMAND: "cli"}
"""What a task instance has for `mode`: with the first two, `info` shows the address."""

STATES: Mapping[Phase, str] = {
    Phase.QUEUED: "queued",
    Phase.STARTING: "queue_scheduled",
    Phase.RUNNING: "running",
    Phase.ASLEEP: "running",
    Phase.STOPPING: "running",
    Phase.SUCCESS: "success",
    Phase.FAILED: "failed",
    Phase.SHUTDOWN: "shutdown",
    Phase.TIMEOUT: "timeout",
}
"""The original's words: it stops what is in one of the first three, and takes the last four for ended. A job that sleeps answers all the same."""

_NO_LIMIT_S = 10 * 365 * 86400
"""The client wants a number, and takes anything under a day for a free plan."""


def job_object(job: Job, duration_s: float, base: str) -> dict[str, Any]:
    """`base` is the address of this server without a slash at the end."""
    limit_s = job.limits.max_runtime_s
    return {
        "id": job.id,
        "name": job.name,
        "created": date(job.created),
        "description": job.description,
        "state": STATES[job.phase],
        "duration": round(duration_s, 3),
        "log_id": f"log.{job.id}",
        "instance_log_id": f"log.{job.id}",
        "canvas": {"nodes": {"module": {"taskInstanceId": job.id, "type": "module_node"}}},
        "instance_type": job.instance,
        "mode": job.mode.value,
        "service_url": service_url(job, base),
        "timeout_seconds": int(limit_s) if 0 < limit_s < math.inf else _NO_LIMIT_S,
        "tensorboard_url": None,
        "output_id": f"{job.id}.output",
        "latest_metrics": None,
        # For clients of ours.
        "phase": job.phase.value,
        "reason": job.reason,
        "stopping": job.stop,
        "env": job.environment,
        "command": job.command,
        "calls": job.calls,
        "started": date(job.started) if job.started else None,
        "ended": date(job.ended) if job.ended else None,
        "data": [{"id": mount.data, "name": mount.title, "mount": mount.name} for mount in job.mounts],
    }


def moment(job: Job, now: Seen) -> dict[str, Any]:
    """What is added for a job that runs, for clients of ours."""
    return {
        "ready": now.ready,
        "waiting": now.waiting,
        "busy": now.busy,
        "calls": job.calls + now.calls,
        "memory": now.memory,
        "isolation": now.isolation,
    }


def service_url(job: Job, base: str) -> str | None:
    """Where the program answers; it is shown before it does. None in command mode."""
    return None if job.mode is Mode.COMMAND else f"{base}/expose/{job.endpoint}"


def task_instance(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "log_id": f"log.{job.id}",
        "output_ids": {"output": f"{job.id}.output"},
        "mode": TASK_MODES[job.mode],
        "module_id": job.code,
    }


def project_object(project: Project, latest: Job | None) -> dict[str, Any]:
    return {
        "id": project.id,
        "name": project.name,
        "description": project.description,
        "public": project.public,
        "latest_experiment_name": latest.name if latest is not None else None,
        "owner": project.owner,
    }


def date(seconds: float) -> str:
    """UTC, of which the client reads the first 19 characters."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
