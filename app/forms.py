"""What the dialogs ask for, and the command line that the answers make.

A form is a value: fields, a function that composes the command line, one that checks the
answers.  The dialog that shows it knows nothing of any verb.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.commands import CommandLine
from app.words import short_path
from backend.errors import UsageError
from backend.escape import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from backend.catalog import Image
    from backend.config import CustomCommand

YES, NO = "yes", "no"
HERE, WINDOW = "this terminal", "tmux window"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One question.

    Attributes:
        key: Name of the answer.
        label: What stands before it.
        value: The answer at first.
        choices: The possible answers; none means any text.
        hint: What an empty answer means.
        secret: Whether the answer is hidden while it is typed.
    """

    key: str
    label: str
    value: str = ""
    choices: tuple[str, ...] = ()
    hint: str = ""
    secret: bool = False


Answers = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A dialog's content.

    Attributes:
        title: What it is about.
        go: What the button says that does it.
        fields: The questions in order.
        compose: Answers to command line.
        check: Raises UsageError when the answers make no sense; may return a line to show.
        note: A sentence below the fields.
        about: Key of the field that says what a job works on.
        several: Answers to what each of several jobs works on, and its command line.
        test: Answers to a command line that tries them and changes nothing.
    """

    title: str
    go: str
    fields: tuple[Field, ...]
    compose: Callable[[Mapping[str, str]], CommandLine]
    check: Callable[[Mapping[str, str]], str] = field(default=lambda _answers: "")
    note: str = ""
    about: str = "reference"
    several: Callable[[Mapping[str, str]], Sequence[tuple[str, CommandLine]]] | None = None
    test: Callable[[Mapping[str, str]], CommandLine] | None = None

    def stdin(self, answers: Mapping[str, str]) -> bytes:
        """Return what the command reads: the hidden answers, a line for each."""
        return "".join(f"{answers[one.key]}\n" for one in self.fields if one.secret).encode()

    def jobs(self, answers: Mapping[str, str]) -> Sequence[tuple[str, CommandLine]]:
        """Return what each job works on, and its command line; one job, of most forms."""
        if self.several:
            return self.several(answers)
        command = self.compose(answers)
        return [(answers.get(self.about) or command.argv[-1], command)]

    def shown(self, answers: Mapping[str, str]) -> CommandLine:
        """Return the command line that somebody would type to get the same."""
        command = self.compose(answers)
        number = after(answers)
        if number is None:
            return command
        verb, *rest = command.argv
        return CommandLine(argv=(verb, "--job", "--after", str(number), *rest))


_AT_ONCE = "at once"


def waiting(form: Form, numbers: Sequence[int]) -> Form:
    """Return a form that also asks which of the jobs that are not over to wait for."""
    if not numbers:
        return form
    choices = (_AT_ONCE, *(f"after #{number}" for number in numbers[:4]))
    return replace(form, fields=(*form.fields, Field(key="after", label="Begin", choices=choices)))


def after(answers: Mapping[str, str]) -> int | None:
    """Return the job that the answers say to wait for; None for none."""
    number = answers.get("after", "").partition("#")[2]
    return int(number) if number else None


def _flag(key: str, label: str, *, on: bool = False) -> Field:
    return Field(key=key, label=label, choices=(NO, YES), value=YES if on else NO)


def _option(answers: Mapping[str, str], key: str, option: str) -> list[str]:
    value = answers.get(key, "").strip()
    return [option, value] if value else []


def _switch(answers: Mapping[str, str], key: str, option: str) -> list[str]:
    return [option] if answers.get(key) == YES else []


def _words(text: str) -> list[str]:
    """Split what a person typed as a shell would, quotes included.

    Raises:
        UsageError: A quote is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"in {quoted(text)} a quote is not closed") from error


def as_uri(text: str) -> str:
    """Return what was typed as a reference with its transport: ``ubuntu`` is on a registry."""
    text = text.strip()
    return text if "://" in text or text.partition(":")[0] in _LOCAL else f"docker://{text}"


_LOCAL = frozenset({"oci", "oci-archive", "docker-archive", "docker-daemon", "file"})


# Pull


def pull_form(reference: str = "") -> Form:
    """Ask what to pull."""
    return Form(
        title="Pull an image",
        go="Pull",
        fields=(
            Field(
                key="reference",
                label="Image",
                value=reference,
                hint="docker.io/library/alpine:3.20, or docker://..., oras://...",
            ),
            Field(key="target", label="File", hint="named after the image"),
            *_PULL_FIELDS,
        ),
        compose=_compose_pull,
        check=_check_pull,
        note="It becomes a job: it goes on when you quit or lose the connection.",
    )


def pulls_form(references: Sequence[str]) -> Form:
    """Ask how to pull several images; the command line shown is that of the first."""
    first = {"reference": references[0], "target": ""}

    def check(answers: Mapping[str, str]) -> str:
        _check_pull({**first, **answers})
        return ", ".join(one.rpartition("/")[2] for one in references)

    return Form(
        title=f"Pull {len(references)} images",
        go="Pull all",
        fields=_PULL_FIELDS,
        compose=lambda answers: _compose_pull({**first, **answers}),
        several=lambda answers: [
            (one, _compose_pull({**first, **answers, "reference": one})) for one in references
        ],
        check=check,
        note="Each becomes a job with a command like this one; its file is named after the image.",
    )


_PULL_FIELDS = (
    Field(key="platform", label="Platform", hint="this machine's, as linux/amd64"),
    Field(key="compression", label="Compress", choices=("zstd:3", "zstd:19", "gzip", "xz", "lz4")),
    _flag("force", "Overwrite"),
    _flag("no_https", "No TLS"),
)


def _compose_pull(answers: Mapping[str, str]) -> CommandLine:
    reference = as_uri(answers["reference"]) if answers["reference"].strip() else "URI"
    target = [answers["target"].strip()] if answers["target"].strip() else []
    force = _switch(answers, "force", "--force")
    https = _switch(answers, "no_https", "--no-https")
    platform = _option(answers, "platform", "--platform")
    compression = answers.get("compression", "zstd:3")
    compress = ["--compression", compression] if compression != "zstd:3" else []
    return CommandLine(
        argv=("pull", *force, *https, *platform, *compress, *target, reference),
        singularity=("pull", "--oci", *force, *https, *platform, *target, reference),
    )


def _check_pull(answers: Mapping[str, str]) -> str:
    from backend.oci.platform import parse_platform
    from backend.reference import parse

    if not answers["reference"].strip():
        raise UsageError("Which image?")
    reference = parse(as_uri(answers["reference"]))
    if answers["platform"].strip():
        parse_platform(answers["platform"].strip())
    target = answers["target"].strip() or reference.file_name()
    return f"{reference} -> {target}"


# Convert


_FORMS = ("oci-sif", "sif", "oci", "oci-archive", "docker-archive", "sandbox")
_ENDINGS = {
    "oci-sif": ".oci.sif",
    "sif": ".sif",
    "oci": ".oci",
    "oci-archive": ".oci.tar",
    "docker-archive": ".docker.tar",
    "sandbox": "",
}
"""Form of an image to the end of the name that a file of it gets."""


def convert_form(images: Sequence[Image]) -> Form:
    """Ask what to make of an image; of several the command line shown is that of the first."""
    first = images[0]
    several = len(images) > 1
    target = Field(key="target", label="File", hint="named after the image")
    return Form(
        title=f"Convert {first.title}" if not several else f"Convert {len(images)} images",
        go="Convert" if not several else "Convert all",
        fields=(
            Field(
                key="form",
                label="To",
                choices=_FORMS,
                value="oci-sif" if first.kind == "sif" else "sif",
            ),
            *(() if several else (target,)),
            *_CONVERT_FIELDS,
        ),
        compose=lambda answers: _compose_convert(answers, first),
        several=lambda answers: [
            (image.title, _compose_convert(answers, image)) for image in images
        ],
        check=lambda answers: _check_convert(answers, images),
        note="oci: a layout; sandbox: a folder with the image's files.  It becomes a job.",
    )


_CONVERT_FIELDS = (
    Field(key="compression", label="Compress", choices=("zstd:3", "zstd:19", "gzip", "xz", "lz4")),
    _flag("keep_layers", "All layers"),
    _flag("force", "Overwrite"),
)


def _compose_convert(answers: Mapping[str, str], image: Image) -> CommandLine:
    form, source = answers["form"], short_path(image.path)
    target = _target(answers, image)
    named = f"{form}:{target}" if form in {"oci", "oci-archive", "docker-archive"} else target
    compression = answers["compression"] if form in {"oci-sif", "sif"} else "zstd:3"
    argv = (
        "convert",
        *_switch(answers, "force", "--force"),
        *(["--keep-layers"] if form == "oci-sif" and answers["keep_layers"] == YES else []),
        *(["--native"] if form == "sif" else ["--sandbox"] if form == "sandbox" else []),
        *(["--compression", compression] if compression != "zstd:3" else []),
        source,
        named,
    )
    sandbox = form == "sandbox" and image.kind == "sif"
    return CommandLine(
        argv=argv, singularity=("build", "--sandbox", target, source) if sandbox else ()
    )


def _target(answers: Mapping[str, str], image: Image) -> str:
    """Return the file that was named, else one named after the image, in the current folder."""
    named = answers.get("target", "").strip()
    stem = re.sub(r"(\.oci)?\.sif$", "", image.file_name) or "image"
    return named or f"{stem}{_ENDINGS[answers['form']]}"


def _check_convert(answers: Mapping[str, str], images: Sequence[Image]) -> str:
    from backend.convert import parse_target

    for image in images:
        command = _compose_convert(answers, image)
        wanted = parse_target(
            command.argv[-1],
            native="--native" in command.argv,
            sandbox="--sandbox" in command.argv,
        )
        if wanted.path.absolute() == Path(image.path):
            raise UsageError(f"{image.file_name} would be written over itself; name another file")
        if wanted.path.exists() and answers["force"] != YES:
            raise UsageError(f"{wanted.path} exists; name another file, or choose Overwrite")
    return ", ".join(f"{_target(answers, image)}" for image in images[:8])


# Run, exec and shell


NO_PROFILE = "none"
BACKGROUND = "background"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlaces:
    """Where a container may be opened, and with which flags.

    Attributes:
        in_tmux: Whether tmux can open windows for us.
        prefer_window: Whether that is what the user wants there.
        profiles: Names of sets of flags to these.
        profile: The name that was last chosen.
    """

    in_tmux: bool = False
    prefer_window: bool = True
    profiles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    profile: str = ""

    @property
    def choices(self) -> tuple[str, ...]:
        """Places, the usual one first."""
        windows = (WINDOW,) if self.in_tmux else ()
        return (
            *(windows if self.prefer_window else ()),
            HERE,
            *(() if self.prefer_window else windows),
            BACKGROUND,
        )


def run_form(image: Image, *, verb: str = "run", places: RunPlaces = RunPlaces()) -> Form:
    """Ask how to run an image, or open a shell in it."""
    named = places.profiles
    profile = Field(
        key="profile", label="Profile", choices=(NO_PROFILE, *named), value=places.profile
    )
    terminal = [one for one in places.choices if verb == "run" or one != BACKGROUND]
    return Form(
        title=f"{verb.capitalize()} {image.title}",
        go="Run",
        fields=(
            *((profile,) if named else ()),
            *_RUN_FIELDS,
            Field(key="place", label="Terminal", choices=tuple(terminal)),
            Field(key="keep", label="Save as", hint="a name: keeps these flags as a profile"),
        ),
        compose=lambda answers: _compose_run(answers, verb, image.path, named),
        check=lambda answers: _check_run(answers, verb, image.path, named),
        note="Leave it with 'exit' or ctrl+d; the deck comes back by itself.",
    )


_RUN_FIELDS = (
    Field(key="command", label="Command", hint="the image's own CMD"),
    Field(key="binds", label="Binds", hint="/scratch:/data, several with spaces between"),
    Field(key="env", label="Env", hint="NAME=value, several with spaces between"),
    Field(key="cwd", label="Folder", hint="the image's own WORKDIR"),
    Field(key="overlay", label="Overlay", hint="a folder, ext3 or squashfs; else in memory"),
    Field(key="gpu", label="GPU", choices=("none", "nv", "rocm")),
    Field(key="network", label="Network", choices=("host", "none", "private")),
    Field(key="runtime", label="Runtime", choices=("any", "crun", "runc", "builtin")),
    _flag("fakeroot", "As root"),
)


def profile_flags(
    answers: Mapping[str, str], profiles: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """Return the flags that a profile keeps: those of the chosen one, and what was filled in."""
    chosen = profiles.get(answers.get("profile", NO_PROFILE), ())
    return (*chosen, *_runtime(answers), *_run_flags(answers))


def _runtime(answers: Mapping[str, str]) -> list[str]:
    return ["--runtime", answers["runtime"]] if answers["runtime"] != "any" else []


def _run_flags(answers: Mapping[str, str]) -> tuple[str, ...]:
    """Return what was filled in, as flags that SingularityCE knows too."""
    binds = [word for bind in _words(answers["binds"]) for word in ("--bind", bind)]
    env = [word for pair in _words(answers["env"]) for word in ("--env", pair)]
    network = answers["network"]
    return (
        *binds,
        *env,
        *_option(answers, "cwd", "--cwd"),
        *_option(answers, "overlay", "--overlay"),
        *([f"--{answers['gpu']}"] if answers["gpu"] != "none" else []),
        *(["--net", "--network", network] if network != "host" else []),
        *_switch(answers, "fakeroot", "--fakeroot"),
    )


def _compose_run(
    answers: Mapping[str, str], verb: str, image: str, profiles: Mapping[str, tuple[str, ...]]
) -> CommandLine:
    shared = _run_flags(answers)
    detach = ["--detach", "--tty"] if answers.get("place") == BACKGROUND else []
    profile = answers.get("profile", NO_PROFILE)
    named = ["--profile", profile] if profile != NO_PROFILE else []
    words = (short_path(image), *_words(answers["command"]))
    return CommandLine(
        argv=(verb, *named, *_runtime(answers), *detach, *shared, *words),
        # SingularityCE's OCI mode starts nothing in the background.
        singularity=() if detach else (verb, "--oci", *profiles.get(profile, ()), *shared, *words),
    )


_DEVICES = {"nv": "/dev/nvidiactl", "rocm": "/dev/kfd"}


def _check_run(
    answers: Mapping[str, str], verb: str, image: str, profiles: Mapping[str, tuple[str, ...]]
) -> str:
    from backend.profiles import check_name
    from backend.runtime.options import parse_binds, parse_environment, parse_overlays

    _compose_run(answers, verb, image, profiles)
    parse_binds(tuple(_words(answers["binds"])))
    parse_environment(tuple(_words(answers["env"])))
    parse_overlays(tuple(_words(answers["overlay"])))
    if answers["keep"].strip():
        check_name(answers["keep"].strip())
    device = _DEVICES.get(answers["gpu"])
    return f"there is no {device} on this host" if device and not Path(device).exists() else ""


# Log in


def login_form(registry: str, user: str = "") -> Form:
    """Ask for a login; the password is handed over on standard input and shown nowhere."""
    return Form(
        title="Log in to a registry",
        go="Save",
        fields=(
            Field(key="registry", label="Registry", value=registry, hint="ghcr.io"),
            Field(key="user", label="User", value=user, hint="alice"),
            Field(key="password", label="Password", hint="or a token", secret=True),
            Field(key="store", label="Keep in", choices=("auto", "keyring", "file")),
            Field(key="file", label="File of", choices=tuple(_LOGIN_FILES)),
            _flag("no_https", "No TLS"),
        ),
        compose=_compose_login,
        check=_check_login,
        test=lambda answers: _compose_login({**answers, "store": "none"}),
        note="The registry is asked before it is stored.  A file holds the password as base64, not "
        "encrypted; auto takes the keyring where one can be reached.",
    )


_LOGIN_FILES = {
    "singularity": "",
    "apptainer": "~/.apptainer/docker-config.json",
    "podman": "~/.config/containers/auth.json",
    "docker": "~/.docker/config.json",
}
"""Program that reads a file to the file; SingularityCE's is the one that is taken unasked."""


def _compose_login(answers: Mapping[str, str]) -> CommandLine:
    host = answers["registry"].strip() or "HOST"
    user = ["-u", answers["user"].strip() or "USER", "--password-stdin"]
    store = ["--store", answers["store"]] if answers["store"] != "auto" else []
    https = _switch(answers, "no_https", "--no-https")
    named = _LOGIN_FILES[answers["file"]]
    file = ["--authfile", str(Path(named).expanduser())] if named and "none" not in store else []
    shared = (*user, *file, *https, f"docker://{host}")
    return CommandLine(
        argv=("registry", "login", *store, *shared), singularity=("registry", "login", *shared)
    )


def _check_login(answers: Mapping[str, str]) -> str:
    from backend.reference import parse

    host = answers["registry"].strip()
    if not host:
        raise UsageError("Which registry?")
    parse(f"oras://{host}/x")
    if not answers["user"].strip() or not answers["password"]:
        raise UsageError("A user name and a password or token are needed.")
    return ""


# Build


def build_form(folder: Path) -> Form:
    """Ask what to build; a Dockerfile in ``folder`` is filled in."""
    names = ("Dockerfile", "Containerfile")
    found = next((name for name in names if (folder / name).is_file()), "")
    return Form(
        title="Build an image",
        go="Build",
        fields=(
            Field(key="target", label="File", value=f"{folder.name}.oci.sif" if found else ""),
            Field(
                key="dockerfile",
                label="Dockerfile",
                value=found,
                hint="the Dockerfile in the context",
            ),
            Field(key="context", label="Context", hint="this folder; or another, or a URL"),
            Field(key="args", label="Arguments", hint="NAME=value, several with spaces between"),
            Field(key="stage", label="Stage", hint="the last one"),
            Field(
                key="builder",
                label="Builder",
                choices=("any", "buildctl", "buildx", "docker", "buildah", "podman"),
            ),
            _flag("no_cache", "Anew"),
            _flag("force", "Overwrite"),
        ),
        compose=_compose_build,
        about="target",
        check=_check_build,
        note="It becomes a job: it goes on when you quit or lose the connection.",
    )


def _compose_build(answers: Mapping[str, str]) -> CommandLine:
    pairs = [word for pair in _words(answers["args"]) for word in ("--build-arg", pair)]
    builder = answers["builder"]
    target = answers["target"].strip() or "TARGET"
    dockerfile, context = answers["dockerfile"].strip(), answers["context"].strip()
    source = ["--file", dockerfile, context] if dockerfile and context else [dockerfile or context]
    shared = [*_switch(answers, "force", "--force"), *pairs]
    ours = [
        *(["--builder", builder] if builder != "any" else []),
        *_option(answers, "stage", "--target"),
        *_switch(answers, "no_cache", "--no-cache"),
    ]
    return CommandLine(
        argv=("build", *shared, *ours, target, *(word for word in source if word)),
        # SingularityCE has no other context than the current folder.
        singularity=()
        if context
        else ("build", "--oci", *shared, target, dockerfile or "Dockerfile"),
    )


def _check_build(answers: Mapping[str, str]) -> str:
    from backend.build.request import is_remote

    if not answers["target"].strip():
        raise UsageError("Which file shall the image be written to?")
    for pair in _words(answers["args"]):
        if "=" not in pair:
            raise UsageError(f"{quoted(pair)} is not NAME=value")
    dockerfile, context = answers["dockerfile"].strip(), answers["context"].strip()
    if dockerfile and not Path(dockerfile).is_file():
        raise UsageError(f"there is no Dockerfile {quoted(dockerfile)} here")
    if context and is_remote(context) and dockerfile:
        raise UsageError("with a URL as the context, its own Dockerfile is used")
    if context and not is_remote(context) and not Path(context).is_dir():
        raise UsageError(f"there is no folder {quoted(context)} here")
    source = dockerfile or context or "./Dockerfile"
    return f"{source} -> {answers['target'].strip()}"


# Push


def push_form(image: Image) -> Form:
    """Ask where to push an image."""
    return Form(
        title=f"Push {image.title}",
        go="Push",
        fields=(
            Field(
                key="reference",
                label="To",
                value=f"{image.name}:{image.tag}" if image.tag else "",
                hint="ghcr.io/group/name:tag",
            ),
            Field(key="transport", label="As", choices=("docker", "oras")),
            _flag("no_https", "No TLS"),
        ),
        compose=lambda answers: _compose_push(answers, short_path(image.path)),
        check=_check_push,
        note="docker: an image that every tool runs; oras: the file as it is.  It becomes a job.",
    )


def _compose_push(answers: Mapping[str, str], image: str) -> CommandLine:
    reference = answers["reference"].strip().partition("://")[2] or answers["reference"].strip()
    uri = f"{answers['transport']}://{reference or 'HOST/NAME:TAG'}"
    argv = ("push", *_switch(answers, "no_https", "--no-https"), image, uri)
    return CommandLine(argv=argv, singularity=argv)


def _check_push(answers: Mapping[str, str]) -> str:
    from backend.reference import parse

    if not answers["reference"].strip():
        raise UsageError("To where?")
    return str(parse(_compose_push(answers, "x").argv[-1]))


# Commands of the user's own


def custom_form(command: CustomCommand, subject: Mapping[str, str]) -> Form:
    """Ask what a command of the user's own wants to know."""
    return Form(
        title=command.name,
        go="Run",
        fields=tuple(
            Field(key=one.name, label=one.label, value=one.value, choices=one.choices)
            for one in command.inputs
        ),
        compose=lambda answers: CommandLine(
            argv=fill(command.argv, {**subject, **answers}), program=()
        ),
    )


def fill(argv: Sequence[str], values: Mapping[str, str]) -> tuple[str, ...]:
    """Return an argument list with ``{name}`` filled in; each word stays one word.

    Raises:
        UsageError: A name has no value.
    """

    def value(match: re.Match[str]) -> str:
        found = values.get(match.group(1))
        if found is None:
            raise UsageError(f"nothing is selected that could be the {match.group(1)}")
        return found

    return tuple(re.sub(r"\{(\w+)\}", value, word) for word in argv)
