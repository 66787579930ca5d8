"""What tensorflow_model_server's flags say about SavedModels reaches their runtime as options."""

from dragoman.cli.foreign import FOREIGN


def options(*arguments: str) -> tuple[str, ...]:
    settings, warnings, *_ = FOREIGN["tfserving"].settings(["--model_base_path=/models/half", "--rest_api_port=8501", *arguments])
    assert not warnings
    return settings.option


def test_flags_are_options_of_the_runtime() -> None:
    """Only those that are given; tags as they are written."""
    assert options() == ()
    assert options("--saved_model_tags=Serve,gpu", "--enable_model_warmup=false") == ("saved_model_tags=Serve,gpu", "model_warmup=False")
    given = ("--tensorflow_inter_op_parallelism=2", "--per_process_gpu_memory_fraction=0.5", "--saved_model_tags=")
    assert options(*given) == ("inter_op_parallelism=2", "per_process_gpu_memory_fraction=0.5")
