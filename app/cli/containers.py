"""``ps``, ``logs``, ``attach`` and ``stop``: containers in the background."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from app.cli.common import json_option

if TYPE_CHECKING:
    from backend.runtime.instances import Instance

_CHUNK = 1 << 16


@click.command()
@json_option
@click.option("-a", "--all", "ended", is_flag=True, help="Also those that have ended.")
def ps(*, as_json: bool, ended: bool) -> None:
    """List the containers that run in the background."""
    from backend.escape import one_line
    from backend.runtime.instances import list_instances

    found = list_instances(ended=ended)
    if as_json:
        import json

        click.echo(json.dumps([_fields(one) for one in found], indent=2))
        return
    if not found:
        click.echo("INFO:    No container runs in the background", err=True)
        return
    rows = [("NAME", "PID", "STATE", "STARTED", "IMAGE", "COMMAND")]
    for one in found:
        record = one.record
        command = one_line(" ".join(record.command), limit=60)
        pid = str(record.pid) if one.is_running else "-"
        rows.append((record.name, pid, _state(one), _age(one), one_line(record.image), command))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[-1]]))


def _state(one: Instance) -> str:
    if one.is_running:
        return "running"
    return "killed" if one.status is None else f"exit {one.status}"


def _age(one: Instance) -> str:
    from datetime import UTC, datetime

    import humanize

    started = datetime.fromtimestamp(one.record.created, tz=UTC)
    return humanize.naturaltime(datetime.now(tz=UTC) - started)


def _fields(one: Instance) -> dict[str, object]:
    record = one.record
    return {
        "name": record.name,
        "pid": record.pid,
        "state": "running" if one.is_running else "ended",
        "status": one.status,
        "created": record.created,
        "image": record.image,
        "command": list(record.command),
        "runtime": record.runtime,
        "log": one.log,
    }


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on until the container ends.")
@click.argument("name")
def logs(name: str, *, follow: bool) -> None:
    """Print what a container in the background has printed."""
    from backend.runtime.instances import find_instance

    _print_log(find_instance(name, running=False), follow=follow, skip=False)


@click.command()
@click.option("--detach-keys", metavar="KEYS", default="",
              help="Leave with these keys instead of ctrl-p,ctrl-q.")  # fmt: skip
@click.option("--no-stdin", is_flag=True, help="Only watch.")
@click.argument("name")
def attach(name: str, *, detach_keys: str, no_stdin: bool) -> int:
    """Take over the terminal of a container, or watch what it prints from now on.

    One that was started with -dt has a terminal: keys go there, and Ctrl-P Ctrl-Q leaves it
    running. One with -di gets what is typed here. Signals are handed on to any.
    The exit status is the container's.
    """
    import os
    import signal

    from backend import settings
    from backend.runtime import console
    from backend.runtime.instances import find_instance, wait

    wanted = detach_keys or settings.variable("DETACH_KEYS") or console.DETACH_KEYS
    keys = console.parse_keys(wanted)
    found = find_instance(name, running=True)

    def hand_on(number: int, _frame: object) -> None:
        os.kill(found.record.pid, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, hand_on)
    if found.has(console.SOCKET) and not no_stdin:
        click.echo(f"INFO:    Attached to {name}; {wanted} leaves it running", err=True)
        if not console.attach_terminal(found.folder, keys):
            click.echo(f"INFO:    {name} goes on; come back with: sifdeck attach {name}", err=True)
            return 0
        while wait(found):
            pass
    else:
        if found.has(console.INPUT) and not no_stdin:
            _feed(found)
        _print_log(found, follow=True, skip=True)
    ended = find_instance(name, running=False)
    return 137 if ended.status is None else ended.status


def _feed(found: Instance) -> None:
    """Hand our input on to a container, beside watching it."""
    from threading import Thread

    from backend.runtime.console import feed

    Thread(target=feed, args=(found.folder,), daemon=True).start()


def _print_log(found: Instance, *, follow: bool, skip: bool) -> None:
    from backend.runtime.instances import wait

    with open(found.log, "rb") as log:  # noqa: PTH123
        if skip:
            log.seek(0, 2)
        running = True
        while running:
            running = follow and wait(found)  # looked at before the last read: nothing is lost
            while data := log.read(_CHUNK):
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()


@click.command()
@click.option("-t", "--time", "grace_s", default=10.0, show_default=True, metavar="SECONDS",
              help="Between SIGTERM and SIGKILL.")  # fmt: skip
@click.argument("names", nargs=-1, required=True)
def stop(names: tuple[str, ...], *, grace_s: float) -> None:
    """End containers in the background."""
    from backend.runtime import instances

    for name in names:
        instances.stop(instances.find_instance(name, running=False), grace_s=grace_s)
        click.echo(name)
