"""``registries.conf``: rules, mirrors, short names; and the files they come from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from backend.errors import NotFoundError, UsageError
from backend.events import Note, ignore
from backend.reference import parse
from backend.registry.access import Access, find_short_name
from backend.registry.browse import Tag, mark_aliases, search, version_key
from backend.registry.credentials import Credentials, given_login
from backend.registry.registries import Registries, load_registries
from backend.sources.opened import open_source, tell_limit
from tests.support.flaky import Fault, flaky_proxy
from tests.support.images import image, layer

if TYPE_CHECKING:
    from pathlib import Path

    from backend.events import Event
    from backend.reference import Reference
    from tests.support.registry import Registry

CONF = """
unqualified-search-registries = ["one.example", "two.example"]
[aliases]
"tool" = "far.example/lab/tool"
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "cache.example/hub"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "near.example"
insecure = true
[[registry]]
prefix = "docker.io/evil"
blocked = true
[[registry]]
prefix = "*.corp.example"
location = "gate.example"
[[registry]]
location = "old.example/a"
"""


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registries:
    path = tmp_path / "registries.conf"
    path.write_text(CONF)
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(path))
    return load_registries()


def places(rules: Registries, text: str) -> list[str]:
    return [str(place.reference).removeprefix("docker://") for place in rules.places(parse(text))]


def test_mirrors_come_first(rules: Registries) -> None:
    assert places(rules, "docker://ubuntu") == [
        "near.example/library/ubuntu:latest",
        "docker.io/library/ubuntu:latest",
    ]
    pinned = f"docker://ubuntu@sha256:{'0' * 64}"
    assert places(rules, pinned)[0].startswith("cache.example/hub/library/ubuntu@sha256:")
    first, last = rules.places(parse("docker://ubuntu"))
    assert (first.insecure, last.insecure) == (True, False)


def test_longest_prefix_counts(rules: Registries) -> None:
    with pytest.raises(UsageError, match="evil/x is blocked"):
        rules.places(parse("docker://docker.io/evil/x"))
    assert places(rules, "docker://docker.io/evilness/x")[-1] == "docker.io/evilness/x:latest"
    assert places(rules, "docker://a.corp.example/x/y:1") == ["gate.example/x/y:1"]
    assert places(rules, "docker://old.example/a/b") == ["old.example/a/b:latest"]
    assert places(rules, "docker://other.example/a") == ["other.example/a:latest"]


def test_short_names(rules: Registries) -> None:
    assert [str(one) for one in rules.expand("tool:2")] == ["docker://far.example/lab/tool:2"]
    assert [one.registry for one in rules.expand("x")] == ["one.example", "two.example"]


def test_folders_of_files(clean_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.registry.registries.SYSTEM_FILE", clean_home / "none/x.conf")
    assert load_registries() == Registries()
    folder = clean_home / ".config/containers/registries.conf.d"
    folder.mkdir(parents=True)
    (folder / "1.conf").write_text('[aliases]\nx = "a.example/x"\n[[registry]]\nlocation="q"\n')
    (folder / "2.conf").write_text('[aliases]\nx = "b.example/x"\n')
    found = load_registries()
    assert found.aliases == {"x": "b.example/x"}
    assert [rule.prefix for rule in found.rules] == ["q"]
    (folder / "3.conf").write_text("not toml")
    with pytest.raises(UsageError, match=r"3\.conf cannot be read"):
        load_registries()


async def test_a_searched_name_is_found_where_it_is(registry: Registry) -> None:
    registry.push(image([layer()]), "searched", "v1")
    rules = Registries(search=("127.0.0.1:1", registry.host))
    access = Access(plain_http=True, registries=rules)
    found = await find_short_name("searched:v1", access)
    assert str(found) == f"docker://{registry.host}/searched:v1"
    with pytest.raises(NotFoundError, match="there is no searched:v2"):
        await find_short_name("searched:v2", access)
    assert await find_short_name("x", Access(registries=Registries())) is None


async def test_a_limit_that_is_near_is_told(registry: Registry) -> None:
    registry.push(image([layer()]), "limited")
    headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "3;w=21600"}
    fault = Fault(path="HEAD", kind="headers", headers=headers)
    told: list[Event] = []
    with flaky_proxy(registry.host, fault) as proxy:
        reference = parse(f"docker://{proxy.host}/limited")
        async with Access(plain_http=True).client() as client:
            await tell_limit(client, reference, told.append)
            assert proxy.seen("GET") == []
    (note,) = told
    assert isinstance(note, Note)
    assert "allows 3 more of 100 pulls in 6 hours" in note.text


async def test_the_hub_is_not_asked_for_its_limit_where_a_mirror_is(
    rules: Registries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def tell(_client: object, reference: Reference, _report: object) -> None:
        asked.append(str(reference))

    monkeypatch.setattr("backend.sources.opened.tell_limit", tell)
    for registries in (rules, Registries()):
        access = Access(registries=registries)
        for text in ("docker://ubuntu", "docker://r.example/x"):
            async with open_source(parse(text), access, cache=tmp_path, report=ignore):
                pass
    assert asked == ["docker://docker.io/library/ubuntu:latest"]


def test_versions_sort_as_people_read_them() -> None:
    ordered = ["latest", "edge", "0.9", "v1.2-rc1", "1.2", "1.2.1", "1.10", "v2", "2024.01"]
    shuffled = sorted(ordered, key=lambda tag: tag[::-1])
    found = sorted(shuffled, key=version_key)
    assert found[2:] == ordered[2:]
    assert set(found[:2]) == {"latest", "edge"}


def test_many_tags_stay_quick_and_aliases_point_to_the_first() -> None:
    tags = [Tag(name=f"{number}", digest=f"{number % 7}") for number in range(10_000)]
    marked = mark_aliases(sorted(tags, key=lambda tag: version_key(tag.name)))
    assert [tag.same_as for tag in marked[:9]] == ["", "", "", "", "", "", "", "0", "1"]


HUB = {
    "results": [
        {
            "repo_name": "ubuntu",
            "short_description": "a \x1b[1m",
            "star_count": 9,
            "is_official": True,
        },
        {"repo_name": "lab/ubuntu", "short_description": "", "star_count": 0, "is_official": False},
    ]
}
QUAY = {
    "results": [{"namespace": {"name": "lab"}, "name": "tool", "description": None, "stars": 2.5}]
}


async def test_search_interfaces(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(path: str, document: object) -> Fault:
        body = json.dumps(document).encode()
        return Fault(path=path, kind="status", status=200, body=body, times=2)

    with flaky_proxy(registry.host, answers("hub", HUB), answers("quay", QUAY)) as proxy:
        for name in ("HUB", "QUAY"):
            url = f"http://{proxy.host}/{name.lower()}"
            monkeypatch.setattr(f"backend.registry.browse._{name}_SEARCH", url)
        login = given_login("alice", "secret")
        async with Access(credentials=Credentials(login=login)).client() as client:
            hub = await search(client, "a b&c", "docker.io", 10)
            assert [(hit.name, hit.stars, hit.is_official) for hit in hub] == [
                ("docker.io/library/ubuntu", 9, True),
                ("docker.io/lab/ubuntu", 0, False),
            ]
            (found,) = await search(client, "tool", "quay.io", 10)
            assert (found.name, found.description, found.stars) == ("quay.io/lab/tool", "", -1)
        assert "query=a+b%26c" in proxy.requests[0].line
        assert not any("authorization" in request.headers for request in proxy.requests)
