"""Options, tasks, floyd.yml and defaults: which of them counts (sheet, section 3), and what is refused."""

from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.jobs import Mode
from dragoman.serving.jobs.floyd_yml import merged, mount_name

DEFAULT = {"description": "", "command": "", "env": "default", "mode": "command", "instance": "c1"}
FILE = """\
env: tensorflow-1.8
machine: gpu
description: of the file
max_runtime: 3600
command: python train.py
input:
  - destination: input
    source: foo/datasets/food/1
  - foo/datasets/food-test/1:test
task:
  evaluate:
    machine: cpu2
    command: python evaluate.py
    max_runtime: 60
  serve:
    machine: cpu
    mode: serve
    env: pytorch-1.4
    data: me/datasets/model/3:/model
  bare:
"""


def refused(*args: Any) -> str:
    with pytest.raises(ServingError) as error:
        merged(*args)
    assert error.value.kind is Kind.INVALID_INPUT
    return error.value.message


class TestOrder:
    def test_defaults(self) -> None:
        """Where nobody says anything, the client's."""
        wanted = merged({}, None, None, {**DEFAULT, "command": "ls"})
        assert (wanted.mode, wanted.command, wanted.environment, wanted.instance) == (Mode.COMMAND, "ls", "default", "c1")
        assert (wanted.description, wanted.max_runtime_s, wanted.inputs, wanted.notes) == ("", None, (), ())

    def test_the_file_counts_more_than_defaults(self) -> None:
        """Key by key."""
        wanted = merged({}, FILE, None, DEFAULT)
        assert (wanted.mode, wanted.command, wanted.environment, wanted.instance) == (
            Mode.COMMAND,
            "python train.py",
            "tensorflow-1.8",
            "g1",
        )
        assert (wanted.description, wanted.max_runtime_s) == ("of the file", 3600.0)
        assert wanted.inputs == (("foo/datasets/food/1", "input"), ("foo/datasets/food-test/1", "test"))

    def test_the_task_counts_more_than_the_file(self) -> None:
        """What the task does not say, the file does."""
        wanted = merged({}, FILE, "evaluate", DEFAULT)
        assert (wanted.command, wanted.instance, wanted.max_runtime_s, wanted.environment) == (
            "python evaluate.py",
            "c2",
            60.0,
            "tensorflow-1.8",
        )
        assert merged({}, FILE, "bare", DEFAULT).command == "python train.py"

    def test_a_serve_task(self) -> None:
        """Its mode, environment and data; the file's command is for others."""
        wanted = merged({}, FILE, "serve", DEFAULT)
        assert (wanted.mode, wanted.command, wanted.environment, wanted.instance) == (Mode.SERVE, "", "pytorch-1.4", "c1")
        assert wanted.inputs == (("me/datasets/model/3", "/model"),)

    def test_options_count_most(self) -> None:
        """What was typed, of everything."""
        given = {
            "mode": "job",
            "command": "ls",
            "env": "keras",
            "instance": "g2",
            "max_runtime": 5,
            "description": "mine",
            "data": ["ID:here"],
        }
        wanted = merged(given, FILE, "serve", DEFAULT)
        assert (wanted.mode, wanted.command, wanted.environment, wanted.instance) == (Mode.COMMAND, "ls", "keras", "g2")
        assert (wanted.description, wanted.max_runtime_s, wanted.inputs) == ("mine", 5.0, (("ID", "here"),))

    @pytest.mark.parametrize(
        ("word", "mode"), [("serve", Mode.SERVE), ("serving", Mode.SERVE), ("cli", Mode.COMMAND), ("jupyter", Mode.JUPYTER)]
    )
    def test_words_of_older_clients(self, word: str, mode: Mode) -> None:
        """Two of them were renamed."""
        assert merged({"mode": word}).mode is mode

    def test_no_file_and_no_defaults(self) -> None:
        """Client 0.10 sends neither."""
        assert merged({"mode": "serving", "env": "keras"}).environment == "keras"

    @pytest.mark.parametrize("text", ["", "\n", "# only\n#comments: here\n", "---\n# x\n"])
    def test_a_file_that_says_nothing(self, text: str) -> None:
        """The sample that `init` makes is all comments."""
        assert merged({}, text, None, DEFAULT) == merged({}, None, None, DEFAULT)

    def test_a_command_for_serve_is_kept_when_it_was_typed(self) -> None:
        """It is the submission that refuses it."""
        assert merged({"mode": "serve", "command": "ls"}).command == "ls"

    def test_folders_of_the_server(self) -> None:
        """A file URL has a colon of its own."""
        inputs = merged({}, "data: [file:///srv/faces:input, 'file:/srv/x']").inputs
        assert inputs == (("file:///srv/faces", "input"), ("file:/srv/x", ""))

    def test_unknown_keys_are_named(self) -> None:
        """Left out, and said in the log of the job."""
        notes = merged({}, "enviroment: keras\ntask:\n  a:\n    cpus: 2", "a").notes
        assert len(notes) == 2
        assert "'enviroment'" in notes[0]
        assert "task a: 'cpus'" in notes[1]

    def test_versions_that_yaml_takes_for_numbers(self) -> None:
        """They are texts all the same."""
        assert merged({}, "description: 1.5\nmax_runtime: '60'").description == "1.5"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (({}, "a: [", None), "floyd.yml"),
        (({}, "- a", None), "floyd.yml"),
        (({}, "a: &x 1\nb: *x", None), "aliases"),
        (({}, FILE, "tset"), "the tasks are: bare, evaluate, serve"),
        (({}, None, "serve"), "the tasks are: none"),
        (({}, "task: [a]", None), "task"),
        (({}, "task: {a: 1}", None), "task"),
        (({}, "mode: run", None), "expected job, serve or jupyter"),
        (({}, "machine: tpu", None), "expected cpu, gpu, cpu2, gpu2"),
        (({"instance": "x1"},), "instance_type"),
        (({}, "max_runtime: 0", None), "max_runtime"),
        (({}, "max_runtime: -1", None), "max_runtime"),
        (({}, "max_runtime: yes", None), "max_runtime"),
        (({}, "max_runtime: .nan", None), "max_runtime"),
        (({"max_runtime": "soon"},), "max_runtime"),
        (({}, "env: [keras]", None), "env"),
        (({}, "command: {a: b}", None), "command"),
        (({}, "description: true", None), "description"),
        (({}, "input: 5", None), "input"),
        (({}, "input: [{destination: x}]", None), "input"),
        (({}, "input: [{source: x, destination: 1}]", None), "input"),
        (({"data": ["x:y"] * 33},), "33 entries"),
    ],
)
def test_what_is_refused(arguments: tuple[Any, ...], says: str) -> None:
    """With the key, and what was expected."""
    assert says in refused(*arguments)


class TestMounts:
    @pytest.mark.parametrize("mount", ["input", "/input", "/input/", "my-data.v1", "_x"])
    def test_one_level_with_or_without_a_slash(self, mount: str) -> None:
        """People write both."""
        assert mount_name(mount, set()) == mount.strip("/")

    @pytest.mark.parametrize("mount", ["", "/", "a/b", "..", ".", ".x", "a b", "//a", "a//", "é", "a:b", "x" * 65])
    def test_what_is_no_name(self, mount: str) -> None:
        """Nothing that leads elsewhere."""
        with pytest.raises(ServingError):
            mount_name(mount, set())

    @pytest.mark.parametrize("mount", ["etc", "/usr", "output", "floyd", "proc", "tmp"])
    def test_what_every_job_has(self, mount: str) -> None:
        """Data there would hide the system."""
        with pytest.raises(ServingError, match="something else"):
            mount_name(mount, set())

    def test_twice(self) -> None:
        """Each has a place of its own."""
        with pytest.raises(ServingError, match="two data sets"):
            mount_name("/input", {"input"})
