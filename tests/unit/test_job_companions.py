"""What is installed beside old pins, and when nothing is."""

import pytest

from dragoman.engines.requirements import from_file
from dragoman.serving.jobs.companions import companions_of

OLD_FLASK = ("werkzeug<1", "jinja2<3.1", "itsdangerous<2.1", "markupsafe<2.1")
LESS_OLD = ("werkzeug<2", *OLD_FLASK[1:])


def companions(text: str, *added: str) -> tuple[str, ...]:
    return companions_of(from_file(text)[1], added)


@pytest.mark.parametrize(
    "pin", ["flask==0.12.2", "Flask == 1.0.2", "flask<2", "flask>=0.10,<=1.1", "flask~=1.0", "flask[async]==1.1.4", "flask==0.*"]
)
def test_flask_of_its_first_years(pin: str) -> None:
    """Does not say that it cannot work with what came later."""
    assert companions(f"six\n{pin}\n") == OLD_FLASK


@pytest.mark.parametrize(
    "line",
    ["", "flask", "flask>=1.0", "flask==3.0.1", "flask==2.3", "flask<3", "flask-cors==1.0", "flask!=1.0", "tensorflow", "numpy==1.13"],
)
def test_nothing_for_others(line: str) -> None:
    """Where no pin asks for an old release, the installer knows best."""
    assert companions(line) == ()


def test_other_pins() -> None:
    """Flask 2, and the frameworks."""
    assert companions("flask==2.2.5") == companions("flask<2.3") == ("werkzeug<3",)
    assert companions("tensorflow==2.8.0") == companions("tensorflow-cpu<2.9") == ("numpy<2", "protobuf<3.21")
    assert companions("torch==1.13.1\nflask==2.0") == ("numpy<2", "werkzeug<3")
    assert companions("tensorflow-gpu==1.4") == ("numpy<2", "protobuf<3.21", "keras<2.5")
    assert companions("tensorflow==2") == companions("tensorflow<2")


def test_what_the_project_names_is_its_own() -> None:
    """In whatever version and spelling."""
    assert companions("flask==1.0\nWerkzeug==0.14\nJinja2") == OLD_FLASK[2:]
    assert companions("torch==1.4\nnumpy") == ()


def test_werkzeug_for_the_frameworks() -> None:
    """TensorBoard, which comes with TensorFlow, needs release 1."""
    assert companions("flask==1.0", "tensorflow") == LESS_OLD
    assert companions("flask==1.0\ntensorboard") == LESS_OLD


def test_hashes_are_complete() -> None:
    """A project that pins by hashes has named everything."""
    assert companions(f"flask==1.0 --hash=sha256:{'a' * 64}") == ()
