"""Model configurations of Triton repositories: read them, translate them, answer them. Used by serving/repository and the V2 dialect.

read_config (or config_from_json) parses, translate checks and makes ModelSettings of it, config_json writes it down as Triton's clients
expect, and describe does so for a model that is being served, with or without a configuration of its own.
"""

from dragoman.serving.triton.answer import config_json, describe
from dragoman.serving.triton.text import FILE, TritonConfig, config_from_json, read_config
from dragoman.serving.triton.translate import translate

__all__ = ["FILE", "TritonConfig", "config_from_json", "config_json", "describe", "read_config", "translate"]
