"""``sifdeck build TARGET [DOCKERFILE | CONTEXT]``: a Dockerfile becomes one OCI-SIF file."""

from __future__ import annotations

import functools
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from app.cli.common import job_option, json_option
from app.cli.images import image_options, pull_options
from app.cli.progress import reporting

if TYPE_CHECKING:
    from collections.abc import Callable

    from backend.build.request import BuildRequest
    from backend.pull import PullOptions
    from backend.reference import Reference

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS = (
    click.option("-F", "--force", is_flag=True, help="Overwrite a file that exists."),
    click.option(
        "-f", "--file", "dockerfile", metavar="FILE", help="The Dockerfile; - for standard input."
    ),
    click.option("--native", is_flag=True, help="Write a native SIF instead of an OCI-SIF."),
    click.option(
        "--keep-layers", is_flag=True, help="Make a file system of each layer, not one of all."
    ),
    click.option("-t", "--tag", multiple=True, metavar="REF", help="Also push the image there."),
    click.option(
        "--builder",
        metavar="NAME",
        help="buildctl, buildx, docker, buildah or podman.  [default: the first that works]",
    ),
    click.option("--build-arg", multiple=True, metavar="NAME=VALUE", help="The value of an ARG."),
    click.option(
        "--build-arg-file",
        multiple=True,
        type=click.Path(dir_okay=False, path_type=Path),
        help="A file of NAME=VALUE lines.",
    ),
    click.option("--target", "stage", metavar="STAGE", default="", help="Stop at this stage."),
    click.option("--label", multiple=True, metavar="NAME=VALUE", help="A label of the image."),
    click.option(
        "--secret",
        multiple=True,
        metavar="id=NAME,src=FILE|env=NAME",
        help="For RUN --mount=type=secret.",
    ),
    click.option(
        "--ssh", multiple=True, metavar="default|ID=KEY", help="For RUN --mount=type=ssh."
    ),
    click.option("--no-cache", "--disable-cache", is_flag=True, help="Build every step anew."),
    click.option("--pull", is_flag=True, help="Ask the registry for newer base images."),
    click.option("--network", metavar="MODE", default="", help="Of RUN: host, none or default."),
    click.option(
        "--source-date-epoch",
        metavar="SECONDS|off",
        help="The time to write into the image.  [default: of the context's commit, if any]",
    ),
)


def _build_options(function: Callable[P, R]) -> Callable[P, R]:
    return functools.reduce(lambda inner, option: option(inner), reversed(_OPTIONS), function)


@click.command(short_help="Build a Dockerfile into one OCI-SIF file.")
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("source", default="", metavar="[DOCKERFILE | CONTEXT]")
@_build_options
@image_options
@json_option
@job_option("target")
@click.pass_context
def build(
    ctx: click.Context, /, *, target: Path, source: str, as_json: bool, **options: object
) -> None:
    r"""Build an image and write it to TARGET, one OCI-SIF file.

    \b
    sifdeck build lab.oci.sif                     # ./Dockerfile, in the current folder
    sifdeck build lab.oci.sif Dockerfile.gpu      # another file, as SingularityCE has it
    sifdeck build lab.oci.sif -f ci/Dockerfile .  # a file and a folder, as docker has it
    sifdeck build lab.oci.sif - < Dockerfile      # no context

    BuildKit, docker, buildah or podman do the work, whichever is here; none of them has to
    run as root.
    """
    from backend.build.image import Product, build_image
    from backend.build.keeper import work_folder
    from backend.events import Finished
    from backend.settings import flag

    if options["native"] and options["keep_layers"]:
        raise click.UsageError("a native SIF has one file system; leave --keep-layers out")
    tags = [_tag(text) for text in _many(options["tag"])]
    with ExitStack() as stack:
        image = pull_options(options, overwrite=bool(options["force"]) or flag("FORCE"))
        folder = stack.enter_context(work_folder())
        request = _request(source, options, image, folder)
        title = str(request.dockerfile or request.context)
        report = stack.enter_context(
            reporting(ctx, verb="build", title=title, target=str(target), as_json=as_json)
        )
        made = build_image(
            request,
            Product(target=target, tags=tags),
            folder,
            builder=str(options["builder"] or ""),
            options=image,
            report=report,
        )
        report(Finished(path=str(target), digest=made.digest, size=made.size))


def _request(
    source: str, options: dict[str, object], image: PullOptions, folder: Path
) -> BuildRequest:
    """Return what the command line asks for.

    Raises:
        UsageError: It asks for something that makes no sense.
    """
    from backend.build.request import BuildRequest, parse_assignments, read_assignments
    from backend.oci.platform import host_platform

    dockerfile, context = _places(source, str(options["dockerfile"] or ""), folder)
    arguments: dict[str, str] = {}
    for path in _many(options["build_arg_file"]):
        arguments |= read_assignments(Path(path))
    return BuildRequest(
        dockerfile=dockerfile,
        context=context,
        build_args=arguments | parse_assignments(_many(options["build_arg"]), "--build-arg"),
        labels=parse_assignments(_many(options["label"]), "--label"),
        target=str(options["stage"]),
        platform=None if image.platform == host_platform() else image.platform,
        secrets=_many(options["secret"]),
        ssh=_many(options["ssh"]),
        no_cache=bool(options["no_cache"]),
        pull=bool(options["pull"]),
        network=str(options["network"]),
        plain_http=image.access.plain_http,
        source_date_epoch=_epoch(options["source_date_epoch"], context),
        compressed=bool(options["tag"]),
    )


def _places(source: str, file: str, folder: Path) -> tuple[Path | None, str]:
    """Return the Dockerfile and the context.

    ``source`` is a Dockerfile, with the current folder as context, or a context: a folder, an
    address that the builder fetches, or ``-`` for a Dockerfile on standard input.

    Raises:
        UsageError: There is no such Dockerfile.
    """
    from backend.build.request import is_remote
    from backend.errors import UsageError
    from backend.escape import quoted

    if is_remote(source):
        if file:
            raise UsageError(
                "-f names a file of this machine, and the context is not on it",
                hint="a folder of a repository goes into the address: URL#BRANCH:FOLDER",
            )
        return None, source
    if "-" in {source, file}:
        context = _new_folder(folder, "context") if source == "-" else Path(source)
        return _standard_input(_new_folder(folder, "input")), str(context.absolute())
    given = Path(source)
    if source and not given.is_dir():
        if file:
            raise UsageError(f"{source} is no folder", hint="with -f, the other is the context")
        dockerfile, context = given, Path()
    else:
        context = given
        dockerfile = Path(file) if file else _default_dockerfile(context)
    if not dockerfile.is_file():
        raise UsageError(
            f"there is no Dockerfile {quoted(str(dockerfile))}",
            hint="name one: sifdeck build TARGET FILE",
        )
    return dockerfile.absolute(), str(context.absolute())


def _default_dockerfile(context: Path) -> Path:
    for name in ("Dockerfile", "Containerfile"):
        if (context / name).is_file():
            return context / name
    return context / "Dockerfile"


def _new_folder(folder: Path, name: str) -> Path:
    place = folder / name
    place.mkdir()
    return place


def _standard_input(folder: Path) -> Path:
    """Return a file in a folder with what standard input says."""
    from backend.build.dockerfile import MAX_BYTES
    from backend.errors import UsageError

    text = sys.stdin.buffer.read(MAX_BYTES + 1)
    if not text.strip():
        raise UsageError("there is no Dockerfile on standard input")
    if len(text) > MAX_BYTES:
        raise UsageError(f"the Dockerfile is larger than {MAX_BYTES >> 20} MiB")
    path = folder / "Dockerfile"
    path.write_bytes(text)
    return path


def _tag(text: str) -> Reference:
    """Return where to push to; ``docker://`` may be left out, as docker does.

    Raises:
        UsageError: It is no reference of a registry.
    """
    from backend.errors import UsageError
    from backend.escape import quoted
    from backend.reference import parse

    reference = parse(text if "://" in text else f"docker://{text}")
    if reference.transport != "docker" or not reference.tag:
        raise UsageError(
            f"-t {quoted(text)} is no name in a registry", hint="as in ghcr.io/lab/tools:1"
        )
    return reference


def _many(value: object) -> tuple[str, ...]:
    """Return the values of an option that may be given several times."""
    return tuple(str(one) for one in value) if isinstance(value, tuple) else ()


def _epoch(value: object, context: str) -> int | None:
    """Return the time to write into the image.

    Raises:
        UsageError: It is no number of seconds.
    """
    import os

    from backend.build.image import commit_time
    from backend.build.request import is_remote
    from backend.errors import UsageError
    from backend.escape import quoted

    text = str(value) if value is not None else os.environ.get("SOURCE_DATE_EPOCH", "")
    if text == "off":
        return None
    if text:
        if not text.isdecimal():
            raise UsageError(
                f"--source-date-epoch takes seconds since 1970 or 'off', not {quoted(text)}"
            )
        return int(text)
    return None if is_remote(context) else commit_time(Path(context))
