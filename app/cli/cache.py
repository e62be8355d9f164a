"""``sifdeck cache list`` and ``cache clean``: what was downloaded and converted before."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from backend.cache import Entry, Kind

KINDS = ("blob", "partial", "oci-sif", "sif", "rootfs", "scratch", "all")
_kinds = click.option(
    "-T",
    "--type",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    help="Only entries of this type; may be given again.  [default: all]",
)


@click.group(short_help="List and clean the cache.")
def cache() -> None:
    """Show and remove what pulls keep, so that the next one is quick."""


@cache.command("list")
@_kinds
@click.option("-v", "--verbose", is_flag=True, help="List every entry.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def list_(*, kinds: tuple[str, ...], verbose: bool, as_json: bool) -> None:
    """Show what is in the cache and how much room it takes."""
    from backend.cache import list_cache
    from backend.paths import cache_home

    entries = list_cache(cache_home(), _chosen(kinds))
    if as_json:
        click.echo(json.dumps([_json(entry) for entry in entries], indent=2))
        return
    if verbose:
        click.echo(f"{'NAME':<24} {'DATE CREATED':<22} {'SIZE':<16} TYPE")
        for entry in entries:
            date = datetime.fromtimestamp(entry.used).astimezone().strftime("%Y-%m-%d %H:%M:%S")
            click.echo(f"{_shown(entry)[:22]:<24} {date:<22} {_size(entry.size):<16} {entry.kind}")
        click.echo()
    blobs = [entry for entry in entries if entry.kind in {"blob", "partial"}]
    files = [entry for entry in entries if entry.kind not in {"blob", "partial"}]
    click.echo(
        f"There are {len(files)} container file(s) using {_total(files)} and "
        f"{len(blobs)} oci blob file(s) using {_total(blobs)} of space"
    )
    click.echo(f"Total space used: {_total(entries)}")


@cache.command()
@_kinds
@click.option(
    "-D", "--days", type=click.FloatRange(min=0), help="Only what was not used for so many days."
)
@click.option(
    "--size", "limit", metavar="SIZE", help="Only so much that at most SIZE (20G) is left."
)
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be removed.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.pass_context
def clean(
    ctx: click.Context,
    *,
    kinds: tuple[str, ...],
    days: float | None,
    limit: str | None,
    dry_run: bool,
    force: bool,
) -> None:
    """Remove what is in the cache; what another process works with stays.

    With --size, what was not used for longest goes first, and an image that was used in the
    last minute stays.  A limit that every pull keeps to is a setting: cache_limit = "20G".
    """
    from backend.cache import clean_cache, evictable, list_cache, parse_size, unused_for
    from backend.paths import cache_home

    root = cache_home()
    entries = list_cache(root, _chosen(kinds))
    excess = None
    if limit is not None:
        excess = max(0, sum(entry.size for entry in entries) - parse_size(limit))
        entries = evictable(entries)
    if days is not None:
        entries = unused_for(entries, days)
    if not entries or excess == 0:
        click.echo(f"INFO:    No cached files to remove at {root}", err=True)
        return
    if not (dry_run or force):
        _confirm(entries, excess)
    if dry_run:
        click.echo("User requested a dry run. Not actually deleting any data!", err=True)

    def tell(entry: Entry) -> None:
        if not ctx.obj["quiet"]:
            click.echo(f"INFO:    Removing {entry.kind} cache entry: {_shown(entry)}", err=True)

    done = clean_cache(root, entries, dry_run=dry_run, excess=excess, on_removed=tell)
    for entry in done.kept:
        click.echo(f"WARNING: Not removed, in use or not ours: {_shown(entry)}", err=True)
    if not ctx.obj["quiet"]:
        freed = "Would free" if dry_run else "Freed"
        click.echo(f"INFO:    {freed} {_total(done.removed)}", err=True)


def _confirm(entries: list[Entry], excess: int | None) -> None:
    """Ask before removing; only a clear yes will do."""
    if not sys.stdin.isatty():
        raise click.UsageError("cleaning asks first, and this is no terminal; add --force")
    which = f"{len(entries)} cached file(s), {_total(entries)},"
    if excess is not None:
        which = f"cached files until {_size(excess)} are free, of {which}"
    click.echo(
        f"This will delete {which} from the cache.\n"
        "What is needed again will be downloaded or converted again."
    )
    if not click.confirm("Do you want to continue?"):
        raise click.Abort


def _chosen(kinds: tuple[str, ...]) -> tuple[Kind, ...]:
    from backend import cache as backend_cache

    return tuple(
        kind for kind in backend_cache.KINDS if not kinds or kind in kinds or "all" in kinds
    )


def _json(entry: Entry) -> dict[str, object]:
    return {
        "name": entry.name,
        "type": entry.kind,
        "size": entry.size,
        "used": datetime.fromtimestamp(entry.used).astimezone().isoformat(timespec="seconds"),
        "path": str(entry.path),
    }


def _shown(entry: Entry) -> str:
    from backend.escape import one_line

    return one_line(entry.name)


def _total(entries: list[Entry] | tuple[Entry, ...]) -> str:
    return _size(sum(entry.size for entry in entries))


def _size(size: float) -> str:
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.2f} {unit}"
    return f"{size / 1024:.2f} TiB"
