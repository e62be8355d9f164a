"""Who the container's process is, and the maps that make it so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import LaunchError
from backend.runtime.identity import (
    Caller,
    User,
    default_user,
    identify,
    map_ids,
    resolve_user,
)

PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\n"
    b"broken line\n"
    b"worse:x:none:0::/:\n"
    b"app:x:1000:1001:App:/home/app:/bin/sh\n"
    b"1000:x:7:7:a number for a name:/seven:/bin/sh\n"
)
GROUP = b"root:x:0:\nmail:x:8:app,other\napp:x:1001:app\nbig:x:99999999999:app\n"

MANY = Caller(
    uid=1501,
    gid=1600,
    name="alice",
    home="/home/alice",
    uid_range=(100_000, 65536),
    gid_range=(200_000, 65536),
    map_tools=("/usr/bin/newuidmap", "/usr/bin/newgidmap"),
)
ONE = Caller(uid=1502, gid=1502, name="bob", home="/home/bob", groups=(1502, 27))
ROOT = Caller(uid=0, gid=0, name="root", home="/root", real_root=True)
LONE = Caller(uid=0, gid=0, name="root", home="/root", lone=True)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("root", User(uid=0, gid=0, home="/root")),
        ("app", User(uid=1000, gid=1001, groups=(8,), home="/home/app")),
        ("app:mail", User(uid=1000, gid=8, home="/home/app")),
        ("app:0", User(uid=1000, gid=0, home="/home/app")),
        ("4242", User(uid=4242, gid=0, home="/")),
        ("4242:4343", User(uid=4242, gid=4343, home="/")),
        ("4242:mail", User(uid=4242, gid=8, home="/")),
        ("1000", User(uid=7, gid=7, home="/seven")),  # a name is looked for first, as in Docker
        ("7", User(uid=7, gid=7, home="/seven")),
    ],
)
def test_user_is_looked_up_in_the_image(spec: str, wanted: User) -> None:
    assert resolve_user(spec, PASSWD, GROUP) == wanted


def test_root_of_a_namespace_of_one_id_has_one_id() -> None:
    identity = identify(LONE, User(uid=1000, gid=1000, groups=(8,)))
    assert (identity.mode, identity.uids, identity.nested) == ("single", ((0, 0, 1),), True)
    assert identity.user.groups == ()


@pytest.mark.parametrize("spec", ["nobody", "app:nogroup", "worse", "99999999999"])
def test_unknown_users_and_groups_are_errors(spec: str) -> None:
    with pytest.raises(LaunchError, match="the image has no"):
        resolve_user(spec, PASSWD, GROUP)


@given(st.text(max_size=20), st.binary(max_size=200), st.binary(max_size=200))
def test_any_file_gives_a_user_or_our_error(spec: str, passwd: bytes, group: bytes) -> None:
    try:
        user = resolve_user(spec, passwd, group)
    except LaunchError:
        return
    assert 0 <= user.uid < 2**32 - 1
    assert 0 <= user.gid < 2**32 - 1
    assert user.home.startswith("/")


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (0, ((0, 1501, 1), (1, 100_000, 65536))),
        (1000, ((0, 100_000, 1000), (1000, 1501, 1), (1001, 101_000, 64536))),
        (65535, ((0, 100_000, 65535), (65535, 1501, 1), (65536, 165_535, 1))),
        (65536, ((0, 100_000, 65536), (65536, 1501, 1))),
        (4_000_000, ((0, 100_000, 65536), (4_000_000, 1501, 1))),
    ],
)
def test_the_caller_is_the_target_and_others_are_subordinate(
    target: int, wanted: tuple[tuple[int, int, int], ...]
) -> None:
    assert map_ids(target, 1501, (100_000, 65536)) == wanted


@given(st.integers(0, 1 << 20))
def test_no_id_of_the_host_is_given_twice(target: int) -> None:
    outside = [
        first + i for _, first, count in map_ids(target, 5, (100, 1000)) for i in range(count)
    ]
    assert sorted(outside) == [5, *range(100, 1100)]


def test_with_subordinate_ids_one_namespace_does() -> None:
    found = identify(MANY, User(uid=1000, gid=8, groups=(9,)))
    assert (found.mode, found.nested) == ("subordinate", False)
    assert found.user.groups == (9,)
    assert found.gids[1] == (8, 1600, 1)


def test_with_one_id_another_user_takes_a_namespace_more() -> None:
    found = identify(ONE, User(uid=1000, gid=0, groups=(9,)))
    assert (found.mode, found.nested, found.user.groups) == ("single", True, ())
    assert (found.uids, found.gids) == (((0, 1502, 1),), ((0, 1502, 1),))
    assert not identify(ONE, User(uid=0, gid=0)).nested


def test_root_needs_no_map() -> None:
    found = identify(ROOT, User(uid=1000, gid=1000, groups=(8,)))
    assert (found.mode, found.uids, found.user.groups) == ("root", (), (8,))


def test_an_image_without_user_runs_as_the_caller() -> None:
    assert default_user(ROOT) == User(uid=0, gid=0, home="/root")
    wanted = User(uid=1501, gid=1600, home="/home/alice", name="alice")
    assert default_user(MANY) == wanted
