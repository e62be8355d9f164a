"""Forms: the command lines that they compose are ones that the command line takes."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from app.cli.main import cli
from app.forms import (
    Form,
    RunPlaces,
    build_form,
    convert_form,
    custom_form,
    fill,
    login_form,
    profile_flags,
    pull_form,
    push_form,
    run_form,
)
from backend.catalog import Image
from backend.config import CustomCommand, Input
from backend.errors import UsageError

IMAGE = Image(path="/images/my image.sif", kind="oci-sif", name="ghcr.io/lab/x", tag="1")


def filled(form: Form, **given: str) -> dict[str, str]:
    """Return the answers of somebody who changes every choice and fills in what is given."""
    answers = {
        field.key: field.choices[-1] if field.choices else field.value for field in form.fields
    }
    return answers | given


CASES = {
    "pull": (
        pull_form("alpine"),
        {"target": "x.sif", "platform": "linux/arm64"},
        "pull --force --no-https --platform linux/arm64 --compression lz4 x.sif docker://alpine",
    ),
    "run": (
        run_form(IMAGE, places=RunPlaces(in_tmux=True, prefer_window=False)),
        {
            "command": "sh -c 'echo a b'",
            "binds": "/tmp:/data",
            "env": "A=1 B=2",
            "cwd": "/data",
            "overlay": "/tmp:ro",
            "place": "tmux window",
        },
        (
            "run --runtime builtin --bind /tmp:/data --env A=1 --env B=2 --cwd /data "
            "--overlay /tmp:ro --rocm --net --network private --fakeroot "
            "'/images/my image.sif' sh -c 'echo a b'"
        ),
    ),
    "shell": (
        run_form(IMAGE, verb="shell"),
        {},
        "shell --runtime builtin --rocm --net --network private --fakeroot '/images/my image.sif'",
    ),
    "push": (
        push_form(IMAGE),
        {"reference": "docker://ghcr.io/lab/y:2"},
        "push --no-https '/images/my image.sif' oras://ghcr.io/lab/y:2",
    ),
    "login": (
        login_form("ghcr.io"),
        {"user": "alice", "password": "secret", "file": "singularity"},
        "registry login --store file -u alice --password-stdin --no-https docker://ghcr.io",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_command_line_takes_what_a_form_composes(name: str) -> None:
    form, given, expected = CASES[name]
    answers = filled(form, **given)
    form.check(answers)
    command = form.compose(answers)
    assert str(command) == f"sifdeck {expected}"
    assert command.singularity
    assert "secret" not in f"{command} {command.elsewhere}"
    parse(command.argv)


def test_a_profile_is_named_and_singularity_gets_its_flags() -> None:
    profiles = {"gpu": ("--nv", "--bind", "/data")}
    form = run_form(IMAGE, places=RunPlaces(profiles=profiles, profile="gpu"))
    answers = {field.key: field.value or (*field.choices, "")[0] for field in form.fields}
    answers |= {"env": "A=1", "keep": "mine"}
    form.check(answers)
    command = form.compose(answers)
    assert str(command) == "sifdeck run --profile gpu --env A=1 '/images/my image.sif'"
    assert command.elsewhere == (
        "singularity run --oci --nv --bind /data --env A=1 '/images/my image.sif'"
    )
    assert profile_flags(answers, profiles) == ("--nv", "--bind", "/data", "--env", "A=1")
    parse(command.argv)


def test_a_container_in_the_background_is_none_of_singularity_s() -> None:
    form = run_form(IMAGE)
    answers = filled(form, place="background", keep="") | {"gpu": "none"}
    command = form.compose(answers)
    assert "--detach" in command.argv
    assert not command.singularity
    parse(command.argv)
    shell = run_form(IMAGE, verb="shell")
    assert "background" not in next(one for one in shell.fields if one.key == "place").choices


def parse(argv: tuple[str, ...]) -> None:
    """Let the command line parse arguments, without doing anything.

    Raises:
        click.ClickException: It does not know them.
    """
    context, words = click.Context(cli), list(argv)
    command: click.Command | None = cli
    while isinstance(command, click.Group):
        command = command.get_command(context, words.pop(0))
    assert command is not None
    command.make_context("sifdeck", words, parent=context)


def test_a_login_is_kept_where_a_program_looks_and_tried_without_being_kept() -> None:
    form = login_form("ghcr.io", "alice")
    answers = filled(form, password="secret", file="docker", store="auto", no_https="no")
    command = form.compose(answers)
    file = Path("~/.docker/config.json").expanduser()
    words = f"-u alice --password-stdin --authfile {file} docker://ghcr.io"
    assert str(command) == f"sifdeck registry login {words}"
    assert command.elsewhere == f"singularity registry login {words}"
    assert form.stdin(answers) == b"secret\n"
    assert form.test
    tried = form.test(answers)
    assert "--authfile" not in tried.argv
    assert tried.argv[2:4] == ("--store", "none")
    parse(tried.argv)


def test_a_build_is_composed_from_what_is_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Containerfile").write_text("FROM scratch\n")
    monkeypatch.chdir(tmp_path)
    form = build_form(tmp_path)
    answers = filled(form, args="A=1", stage="final")
    assert form.check(answers) == f"Containerfile -> {tmp_path.name}.oci.sif"
    command = form.compose(answers)
    assert command.argv[:4] == ("build", "--force", "--build-arg", "A=1")
    assert command.argv[-2:] == (f"{tmp_path.name}.oci.sif", "Containerfile")
    parse(command.argv)
    assert command.singularity[:2] == ("build", "--oci")
    (tmp_path / "src").mkdir()
    elsewhere = form.compose(answers | {"context": "src"})
    assert elsewhere.argv[-4:] == (answers["target"], "--file", "Containerfile", "src")
    assert elsewhere.singularity == ()  # it knows no other context than the current folder
    parse(elsewhere.argv)
    for wrong in (
        {"context": "nowhere"},
        {"dockerfile": "Nofile"},
        {"context": "https://h/x.git"},
        {"target": ""},
        {"args": "A"},
    ):
        with pytest.raises(UsageError):
            form.check(answers | wrong)
    url = answers | {"dockerfile": "", "context": "https://h/x.git"}
    assert form.check(url).startswith("https://h/x.git")
    assert form.compose(url).argv[-1] == "https://h/x.git"


@pytest.mark.parametrize(
    ("form", "given"),
    [
        (pull_form(), {}),
        (pull_form(), {"reference": "Not A Name"}),
        (pull_form("alpine"), {"platform": "linux/nonsense/x/y"}),
        (run_form(IMAGE), {"command": "'not closed"}),
        (run_form(IMAGE), {"env": "=1"}),
        (run_form(IMAGE), {"overlay": "/no/such/folder"}),
        (run_form(IMAGE), {"keep": "no name"}),
        (convert_form([IMAGE]), {"form": "oci-sif", "target": IMAGE.path}),
        (push_form(IMAGE), {"reference": ""}),
        (push_form(IMAGE), {"reference": "lab//x"}),
        (login_form(""), {}),
        (login_form("ghcr.io"), {"user": "alice"}),
        (login_form("not a host"), {"user": "a", "password": "b"}),
    ],
)
def test_answers_that_make_no_sense_are_refused(form: Form, given: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        form.check({field.key: (*field.choices, field.value)[0] for field in form.fields} | given)


def test_words_of_a_custom_command_stay_words() -> None:
    command = CustomCommand(
        name="Scan",
        argv=("scan", "--of={image}", "{level}"),
        inputs=(Input(name="level", label="L"),),
    )
    form = custom_form(command, {"image": "a b; c.sif"})
    assert form.compose({"level": "$(id)"}).argv == ("scan", "--of=a b; c.sif", "$(id)")
    assert str(form.compose({"level": "x"})) == "scan '--of=a b; c.sif' x"


def test_a_custom_command_without_its_subject_is_refused() -> None:
    with pytest.raises(UsageError, match="image"):
        fill(("scan", "{image}"), {})
