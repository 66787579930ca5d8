"""What the settings say about every model whose own files do not say otherwise. Called by worker.py, once."""

import math
import os
from typing import Any

from dragoman.core.model import BatchPolicy
from dragoman.server.settings import Settings
from dragoman.serving import class_arguments
from dragoman.serving.explain.options import read_setting
from dragoman.serving.model_config import policy_of
from dragoman.serving.repository import Defaults


def defaults(settings: Settings) -> Defaults:
    """Threads and processors are this worker's share."""
    arguments: dict[str, Any] = dict(each.split("=", 1) for each in settings.option)
    arguments["trust_pickle"] = settings.trust_pickle
    if settings.threads:
        arguments["threads"] = settings.threads
    else:  # this worker's share, of which each runtime takes what suits its framework
        arguments["processors"] = max(1, (os.cpu_count() or 1) // settings.workers)
    if settings.device:
        arguments["device"] = settings.device
    return Defaults(
        name=settings.name,
        batch=BatchPolicy(
            max_size=settings.batch_size or (settings.batch_sizes or (BatchPolicy().max_size,))[-1],
            allowed=settings.batch_sizes,
            cut=settings.batch_cut,
            pad=settings.batch_pad,
            max_delay_s=settings.batch_delay_ms / 1000,
            max_queue=settings.max_queue,
        ),
        instances=settings.instances,
        engine="" if settings.engine == "auto" else settings.engine,
        arguments=arguments,
        batch_size=settings.batch_size,
        batch_files=settings.batch_files,
        policy=policy_of(settings.version_policy),
        environments=settings.environments,
        run_timeout_s=settings.prediction_timeout or math.inf,
        load_timeout_s=settings.setup_timeout or math.inf,
        repeatable=settings.repeat,
        explainers=read_setting(settings.explain),
        class_args=class_arguments.parse(settings.class_args),
    )
