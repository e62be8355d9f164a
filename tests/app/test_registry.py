"""``registry login|logout|list|test``, the keyring helper, and the look-ups, on real registries."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app.cli.main import main
from backend.errors import ExitCode
from tests.support.certificates import make_authority
from tests.support.flaky import Fault, flaky_proxy
from tests.support.images import Entry, image, layer
from tests.support.registry import PASSWORD, USER, start_registry
from tests.support.tokens import grant, token_registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.registry import Registry

SECRET = "planted-secret-7f3a"
ROOT = Path(__file__).parents[2]


class Deck:
    """The command line, with what it printed last."""

    def __init__(self, capfd: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self._capture = capfd
        self._patch = patch
        self.out = self.err = ""

    def __call__(self, *args: str, stdin: str = "") -> int:
        self._patch.setattr("sys.stdin", io.StringIO(stdin))
        status = main(list(args))
        self.out, self.err = self._capture.readouterr()
        return status

    def rows(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self.out)
        return found


@pytest.fixture
def deck(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Deck:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # without our helper
    return Deck(capfd, monkeypatch)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def login(deck: Deck, host: str, password: str = PASSWORD, *more: str) -> int:
    return deck(
        "registry",
        "login",
        "-u",
        USER,
        "--password-stdin",
        *more,
        f"docker://{host}",
        stdin=f"{password}\n",
    )


def test_login_is_stored_as_singularity_does(
    deck: Deck, locked_registry: Registry, clean_home: Path
) -> None:
    file = clean_home / ".singularity/docker-config.json"
    file.parent.mkdir()
    file.write_text('{"auths": {"other": {"auth": "eDp5"}}, "HttpHeaders": {"X": "1"}}')
    assert login(deck, locked_registry.host) == 0
    assert f"INFO:    Token stored in {file}" in deck.err
    assert "not encryption" in deck.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    document = json.loads(file.read_text())
    assert document["auths"] == {
        "other": {"auth": "eDp5"},
        locked_registry.host: {"auth": "YWxpY2U6d29uZGVybGFuZA=="},
    }
    assert document["HttpHeaders"] == {"X": "1"}
    assert deck("registry", "test", f"docker://{locked_registry.host}") == 0
    assert "state:       ok" in deck.out


def test_wrong_password_is_not_stored(
    deck: Deck, locked_registry: Registry, clean_home: Path
) -> None:
    assert login(deck, locked_registry.host, "wrong") == ExitCode.AUTHENTICATION
    assert "refuses the login" in deck.err
    assert login(deck, "127.0.0.1:1") == ExitCode.NETWORK
    assert "--offline" in deck.err
    assert not (clean_home / ".singularity").exists()
    assert login(deck, "127.0.0.1:1", PASSWORD, "--offline") == 0


def test_what_login_needs(deck: Deck) -> None:
    assert deck("registry", "login", "docker://h.example") == ExitCode.USAGE
    assert "Docker/OCI registry requires a username" in deck.err
    assert deck("registry", "login", "-u", "x", "--password-stdin", "docker://h.example") == 2
    assert "a password is required" in deck.err
    assert deck("registry", "login", "-u", "x", "library://h.example") == ExitCode.USAGE
    assert "library transport is not supported" in deck.err
    for uri, word in (
        ("https://h.example/v2/", "write docker://h.example"),
        ("docker:///x", "names no registry"),
        ("docker://", "names no registry"),
        ("docker://a b", "names no registry"),
    ):
        argv = ("registry", "login", "-u", "x", "--password-stdin", uri)
        assert deck(*argv, stdin="x") == ExitCode.USAGE
        assert word in deck.err
    colon = ("registry", "login", "-u", "a:b", "--password-stdin", "docker://h.example")
    assert deck(*colon, stdin="x") == ExitCode.USAGE
    assert "colon" in deck.err


def test_a_damaged_file_is_named_and_kept(
    deck: Deck, clean_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = clean_home / ".singularity/docker-config.json"
    file.parent.mkdir()
    file.write_text('{"auths": {"h.example": ')
    assert login(deck, "h.example", PASSWORD, "--offline") == ExitCode.FAILED
    assert "nothing in it was changed" in deck.err
    assert deck("registry", "logout", "docker://h.example") == ExitCode.FAILED
    assert deck("registry", "list", "--offline") == 0
    assert f"{file} cannot be read" in caplog.text
    assert file.read_text() == '{"auths": {"h.example": '


def test_a_file_that_others_can_read_is_marked(deck: Deck, clean_home: Path) -> None:
    file = clean_home / ".docker/config.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"auths": {"h.example": {"auth": "YWxpY2U6b2xk"}}}))
    for mode, secret in (
        (0o600, "base64 in the file"),
        (0o644, "base64 in the file, open to others"),
    ):
        file.chmod(mode)
        assert deck("registry", "list", "--offline", "--json") == 0
        assert deck.rows()[0]["secret"] == secret


def test_logout_where_the_helper_is_missing(deck: Deck, clean_home: Path) -> None:
    """A file from another machine names a program that is not here."""
    file = clean_home / ".singularity/docker-config.json"
    file.parent.mkdir()
    entry = {"auth": "YWxpY2U6b2xk"}
    file.write_text(json.dumps({"auths": {"h.example/": entry}, "credsStore": "desktop"}))
    assert deck("registry", "logout", "docker://h.example") == 0
    assert json.loads(file.read_text()) == {"auths": {}, "credsStore": "desktop"}


def test_docker_hub_logout_works(deck: Deck, clean_home: Path) -> None:
    file = clean_home / ".singularity/docker-config.json"
    assert login(deck, "docker.io", PASSWORD, "--offline") == 0
    assert list(json.loads(file.read_text())["auths"]) == ["https://index.docker.io/v1/"]
    assert deck("registry", "logout", "docker://docker.io") == 0
    assert f"INFO:    Token removed from {file}" in deck.err
    assert "INFO:    Logout succeeded" in deck.err
    assert json.loads(file.read_text()) == {"auths": {}}
    assert deck("registry", "logout", "docker://docker.io") == 0
    assert 'WARNING: There is no existing login to registry "docker://docker.io".' in deck.err


def test_list_shows_every_place(deck: Deck, locked_registry: Registry, clean_home: Path) -> None:
    assert deck("registry", "list") == 0
    assert deck.out == "\n(no registries with stored login information found)\n\n"
    host = locked_registry.host
    assert login(deck, host) == 0
    docker = clean_home / ".docker/config.json"
    docker.parent.mkdir()
    docker.write_text(json.dumps({"auths": {host: {"auth": "YWxpY2U6b2xk"}}}))  # alice:old
    assert deck("registry", "list", "--json") == 0
    ours, theirs = deck.rows()
    assert (ours["state"], theirs["state"]) == ("ok", "refused")
    assert ours["uri"] == theirs["uri"] == f"docker://{host}"
    assert theirs["file"] == str(docker)
    assert theirs["read_by"] == "sifdeck, docker, podman, skopeo, oras"
    assert deck("registry", "list") == 0
    lines = deck.out.splitlines()
    assert lines[0] == lines[-1] == ""
    assert lines[1].split()[:2] == ["URI", "SECURE?"]
    assert "works" in lines[2]
    assert "refused" in lines[3]


def test_expiry_of_a_token_is_shown(deck: Deck, clean_home: Path) -> None:
    file = clean_home / ".docker/config.json"
    file.parent.mkdir()
    # {"exp":1893456000} is 2030-01-01.
    entry = {"identitytoken": "eyJhbGciOiJub25lIn0.eyJleHAiOjE4OTM0NTYwMDB9.x"}
    file.write_text(json.dumps({"auths": {"r.example": entry}}))
    assert deck("registry", "list", "--offline", "--json") == 0
    assert deck.rows()[0]["expires"] == "2030-01-01T00:00:00+00:00"
    assert deck("registry", "list", "--offline") == 0
    assert "not asked, until 2030-01-01T00:00" in deck.out


def test_authfile(deck: Deck, locked_registry: Registry, tmp_path: Path, clean_home: Path) -> None:
    file = tmp_path / "auth.json"
    assert login(deck, locked_registry.host, PASSWORD, "--authfile", str(file)) == 0
    assert locked_registry.host in json.loads(file.read_text())["auths"]
    uri = f"docker://{locked_registry.host}"
    assert deck("registry", "test", "--authfile", str(file), uri) == 0
    assert deck("registry", "test", uri) == ExitCode.AUTHENTICATION
    assert not (clean_home / ".singularity").exists()
    assert deck("registry", "logout", "--authfile", str(file), uri) == 0
    assert json.loads(file.read_text()) == {"auths": {}}


def test_podman_and_skopeo_read_our_login(
    deck: Deck, locked_registry: Registry, tmp_path: Path
) -> None:
    made = image([layer(Entry(name="x"))])
    locked_registry.push(made, "app/judge")
    file = tmp_path / "auth.json"
    assert login(deck, locked_registry.host, PASSWORD, "--authfile", str(file)) == 0
    uri = f"docker://{locked_registry.host}/app/judge:latest"
    argv = ["skopeo", "inspect", "--raw", "--tls-verify=false", "--authfile", str(file), uri]
    done = subprocess.run(argv, capture_output=True, check=True)
    assert done.stdout == made.manifest
    argv = ["podman", "login", "--get-login", "--authfile", str(file), locked_registry.host]
    done = subprocess.run(argv, capture_output=True, check=True)
    assert done.stdout.decode().strip() == USER


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put docker-credential-sifdeck on PATH, with a keyring in a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "docker-credential-sifdeck"
    program.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c \'import sys; sys.path.insert(0, "{ROOT}")\n'
        'from app.credential_helper import main\nsys.exit(main(sys.argv[1:]))\' "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "tests.support.filekeyring.FileKeyring")
    monkeypatch.setenv("TEST_KEYRING", str(tmp_path / "keyring.json"))
    return tmp_path / "keyring.json"


def test_keyring_serves_other_tools(
    deck: Deck,
    locked_registry: Registry,
    clean_home: Path,
    helper: Path,
) -> None:
    host = locked_registry.host
    assert login(deck, host) == 0
    assert "in the keyring" in deck.err
    file = clean_home / ".singularity/docker-config.json"
    assert json.loads(file.read_text()) == {"auths": {}, "credHelpers": {host: "sifdeck"}}
    assert PASSWORD in helper.read_text()
    assert deck("registry", "test", f"docker://{host}") == 0
    made = image([layer(Entry(name="keyring"))])
    locked_registry.push(made, "app/keyring")
    argv = ["skopeo", "inspect", "--raw", "--tls-verify=false", "--authfile", str(file)]
    done = subprocess.run(
        [*argv, f"docker://{host}/app/keyring:latest"], capture_output=True, check=True
    )
    assert done.stdout == made.manifest
    assert deck("registry", "logout", f"docker://{host}") == 0
    assert PASSWORD not in helper.read_text()
    assert json.loads(file.read_text()) == {"auths": {}}


def test_without_a_keyring_nothing_hangs(
    deck: Deck,
    locked_registry: Registry,
    helper: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    assert login(deck, locked_registry.host) == 0
    assert "base64" in deck.err
    assert login(deck, locked_registry.host, PASSWORD, "--store", "keyring") == ExitCode.FAILED
    assert "--store file" in deck.err
    assert not helper.exists()


def test_the_helper_speaks_the_protocol(helper: Path) -> None:
    def call(verb: str, stdin: str = "") -> tuple[int, str]:
        argv = ["docker-credential-sifdeck", verb]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.strip()

    stored = {"ServerURL": "https://r.example", "Username": "u", "Secret": "s"}
    assert call("get", "https://r.example") == (1, "credentials not found in native keychain")
    assert call("store", json.dumps(stored)) == (0, "")
    assert json.loads(call("get", "https://r.example\n")[1]) == stored
    assert json.loads(call("list")[1]) == {"https://r.example": "u"}
    assert call("erase", "https://r.example") == (0, "")
    assert call("list") == (0, "{}")
    assert call("store", "{}")[0] == 1
    assert call("nonsense")[0] == 2
    assert helper.exists()


def test_tls_from_an_authority_of_ours(deck: Deck, tmp_path: Path, clean_home: Path) -> None:
    authority = make_authority(tmp_path)
    folder = tmp_path / "registry"
    folder.mkdir()
    with start_registry(folder, authority=authority) as running:
        running.push(image([layer()]), "app/tls")
        uri = f"docker://{running.host}/app/tls"
        assert deck("tags", uri) == ExitCode.NETWORK
        assert "is not trusted" in deck.err
        assert deck("tags", "--ca-cert", str(authority.certificate), uri) == 0
        assert deck.out.startswith("latest")
        assert deck("tags", "--insecure", uri) == 0
        assert "WARNING: certificates are not checked" in deck.err
        place = clean_home / ".config/containers/certs.d" / running.host
        place.mkdir(parents=True)
        (place / "ca.crt").write_bytes(authority.certificate.read_bytes())
        assert deck("tags", uri) == 0
        assert deck("registry", "test", f"docker://{running.host}") == 0
        assert "HTTPS" in deck.out
        (place / "ca.crt").write_text("nonsense")
        assert deck("tags", uri) == ExitCode.USAGE


@pytest.mark.parametrize("verb", ["tags", "manifest", "referrers"])
def test_a_name_in_a_registry_needs_no_transport(
    deck: Deck, registry: Registry, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.push(image([layer()]), "app/bare")
    conf = tmp_path / "registries.conf"
    conf.write_text(f'[aliases]\n"bare" = "{registry.host}/app/bare"\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    assert deck(verb, f"docker://{registry.host}/app/bare") == 0
    wanted = deck.out
    for name in (f"{registry.host}/app/bare", "bare"):
        assert deck(verb, name) == 0
        assert deck.out == wanted
    assert deck(verb, "oci:layout") == ExitCode.USAGE
    assert "oci:layout is in no registry" in deck.err


def test_insecure_of_registries_conf(
    deck: Deck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry that the machine's administrator lets go without a known certificate."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with start_registry(folder, authority=make_authority(tmp_path)) as running:
        running.push(image([layer()]), "app/lax")
        uri = f"docker://{running.host}/app/lax"
        conf = tmp_path / "registries.conf"
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
        monkeypatch.chdir(tmp_path)
        conf.write_text(f'[[registry]]\nlocation = "{running.host}"\ninsecure = true\n')
        assert deck("pull", "x.sif", uri) == 0
        assert deck("push", "x.sif", f"{uri}:sif") == 0
        assert deck("push", "x.sif", f"oras://{running.host}/app/lax:artifact") == 0
        assert deck("copy", uri, "oci:layout:1") == 0
        assert deck("copy", "oci:layout:1", f"{uri}:copy") == 0
        assert deck("pull", "y.sif", f"oras://{running.host}/app/lax:artifact") == 0
        assert deck("search", "lax", "--registry", running.host) == 0
        assert deck("referrers", uri) == 0
        assert deck("registry", "test", f"docker://{running.host}") == 0
        assert deck("tags", "--sort", "name", uri) == 0
        tags = [line.split()[0] for line in deck.out.splitlines()]
        assert tags == ["artifact", "copy", "latest", "sif"]
        conf.write_text(f'[[registry]]\nlocation = "{running.host}"\nblocked = true\n')
        assert deck("push", "x.sif", f"{uri}:blocked") == ExitCode.USAGE
        assert "is blocked on this machine" in deck.err


def test_token_authentication(deck: Deck, tmp_path: Path) -> None:
    with token_registry(tmp_path) as (running, server):
        grant(running, server, "app/token")
        running.push(image([layer()]), "app/token")
        server.anonymous = False
        uri = f"docker://{running.host}/app/token"
        assert deck("tags", uri) == ExitCode.AUTHENTICATION
        assert login(deck, running.host, "wrong") == ExitCode.AUTHENTICATION
        assert login(deck, running.host) == 0
        assert deck("tags", uri) == 0


def test_rate_limit_is_shown(deck: Deck, registry: Registry) -> None:
    headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "61;w=21600"}
    fault = Fault(path="/v2/", kind="headers", headers=headers, times=100)
    with flaky_proxy(registry.host, fault) as proxy:
        assert deck("registry", "test", f"docker://{proxy.host}") == 0
    assert "61 of 100 left" in deck.out


def test_mirrors_and_blocks(
    deck: Deck, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.push(image([layer()]), "mirror/lab/tool")
    conf = tmp_path / "registries.conf"
    conf.write_text(
        '[[registry]]\nprefix = "far.example/lab"\nlocation = "far.example/lab"\n'
        f'[[registry.mirror]]\nlocation = "{registry.host}/mirror/lab"\ninsecure = true\n'
        '[[registry]]\nlocation = "bad.example"\nblocked = true\n'
    )
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    assert deck("manifest", "docker://far.example/lab/tool") == 0
    assert "linux/amd64" in deck.out
    assert deck("manifest", "docker://bad.example/x") == ExitCode.USAGE
    assert "is blocked on this machine" in deck.err


def test_tags_are_sorted_and_aliases_marked(deck: Deck, registry: Registry) -> None:
    one, two = image([layer(Entry(name="1"))]), image([layer(Entry(name="2"))])
    for tag in ("1.2", "1.10", "latest", "1.10-rc1"):
        registry.push(one, "app/tags", tag)
    registry.push(two, "app/tags", "1.9")
    uri = f"docker://{registry.host}/app/tags"
    assert deck("tags", "--json", uri) == 0
    rows = deck.rows()
    assert [row["tag"] for row in rows] == ["1.10", "1.10-rc1", "1.9", "1.2", "latest"]
    assert [row["same_as"] for row in rows] == ["", "1.10", "", "1.10", "1.10"]
    assert deck("tags", "--sort", "name", "--no-digests", "-n", "2", uri) == 0
    assert deck.out.split() == ["1.10", "1.10-rc1"]
    assert deck("tags", "--sort", "date", "--filter", "1.9", "--json", uri) == 0
    assert deck.rows()[0]["created"] == "2024-05-06T07:08:09Z"


def test_manifest(deck: Deck, registry: Registry) -> None:
    evil = image([layer()], config={"Labels": {"x": "\x1b[2J"}, "Cmd": ["sh"]})
    arm = image([layer(Entry(name="a"))], architecture="arm64")
    registry.push_index("app/manifest", "v1", (evil, "linux/amd64"), (arm, "linux/arm64"))
    uri = f"docker://{registry.host}/app/manifest:v1"
    assert deck("manifest", "--platform", "linux/amd64", uri) == 0
    assert "\x1b" not in deck.out
    assert 'Cmd:          ["sh"]' in deck.out
    assert deck("manifest", "--json", uri) == 0
    found = json.loads(deck.out)
    assert [one["platform"] for one in found["platforms"]] == ["linux/amd64", "linux/arm64"]
    assert all(one["size"] for one in found["platforms"])
    assert deck("manifest", "--raw", uri) == 0
    assert deck.out.encode() == registry.get_manifest("app/manifest", "v1")[0]


def test_search_and_referrers(deck: Deck, registry: Registry) -> None:
    made = image([layer(Entry(name="signed"))])
    registry.push(made, "app/lookfor", "v1")
    signature = image([layer(Entry(name="signature"))])
    registry.push(signature, "app/lookfor", f"{made.digest.replace(':', '-')}.sig")
    assert deck("search", "LOOKFOR", "--registry", registry.host, "--no-https") == 0
    assert deck.out.strip() == f"{registry.host}/app/lookfor"
    assert deck("referrers", "--json", f"docker://{registry.host}/app/lookfor:v1") == 0
    (found,) = deck.rows()
    assert found["digest"] == signature.digest
    assert found["artifactType"] == "application/vnd.dev.cosign.sig"


_WATCHED = """
import os, sys

def note(event, args):
    if event in {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"}:
        with open(os.environ["ARGUMENTS"], "a") as file:
            print(event, args[:2], file=file)

sys.addaudithook(note)

if "BUG" in os.environ:
    from backend.registry.auth import Authorizer

    async def answer(self, response, registry, scope):
        found = await self._credentials.find(registry, scope)
        password = found.secret.reveal()
        raise RuntimeError(f"a bug of ours with {found}", registry, scope)

    Authorizer.answer = answer

from app.cli.main import main

sys.exit(main(sys.argv[1:]))
"""
"""The command line; the arguments of all programs that it starts are noted, a bug is made."""

_HELPER = """#!/bin/sh
echo "helper $*" >> "$ARGUMENTS"
case $1 in
get) cat > /dev/null; printf '{"ServerURL":"x","Username":"USER","Secret":"SECRET"}' ;;
store) cat > /dev/null ;;
esac
"""


def test_no_secret_anywhere(locked_registry: Registry, tmp_path: Path, clean_home: Path) -> None:
    """A planted secret is in the auth file and in no other place.

    Not in arguments of programs, logs, errors, job records, JSON or the report of a crash.
    """
    locked_registry.push(image([layer()]), "app/secret")
    helper = tmp_path / "bin/docker-credential-planted"
    helper.parent.mkdir()
    env = {
        "HOME": str(clean_home),
        "PATH": f"{helper.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SIFDECK_STATE_DIR": str(tmp_path / "state"),
        "SIFDECK_CACHE_DIR": str(tmp_path / "cache"),
        "ARGUMENTS": str(tmp_path / "arguments"),
    }

    def run(*args: str, stdin: str = "", **more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", _WATCHED, *args],
            input=stdin,
            capture_output=True,
            text=True,
            env=env | more,
            cwd=tmp_path,
            check=False,
        )
        return done.stdout + done.stderr

    uri = f"docker://{locked_registry.host}"
    credentials = {"DOCKER_USERNAME": USER, "DOCKER_PASSWORD": SECRET}
    image_uri = f"{uri}/app/secret"
    by_hand = ("registry", "login", "-u", USER, "--password-stdin")
    web = f"http://{USER}:{SECRET}@{locked_registry.host}/x.sif?token={SECRET}"
    verbs = (
        (*by_hand, uri),
        ("tags", image_uri),
        ("manifest", "--json", image_uri),
        ("search", "x", "--registry", uri),
        ("referrers", "--json", image_uri),
        ("pull", "x.sif", image_uri),
        ("pull", "--json", "x.sif", image_uri),
        ("copy", image_uri, "oci:layout"),
        ("copy", "--json", image_uri, "oci:layout"),
        ("run", image_uri),
        ("registry", "test", "--json", uri),
        ("pull", "y.sif", web),
        ("pull", "--json", "y.sif", web),
        ("pull", f"docker://{USER}:{SECRET}@{locked_registry.host}/x"),
    )
    printed = [
        *(run("-d", *verb, stdin=SECRET, **credentials) for verb in verbs),
        run("pull", "--job", "x.sif", image_uri, **credentials),
        run("pull", "--job", "y.sif", web),
    ]
    crashed = [
        run("pull", "x.sif", image_uri, **credentials, BUG="1"),
        run("-d", "pull", "x.sif", image_uri, **credentials, BUG="1"),
    ]
    assert all("a bug of ours with Login(" in text for text in crashed)
    known = {"auths": {}, "credHelpers": {locked_registry.host: "planted"}}
    docker = clean_home / ".docker/config.json"
    docker.parent.mkdir()
    docker.write_text(json.dumps(known))
    secret_reader = _HELPER.replace("USER", USER).replace("SECRET", SECRET)
    helper.write_text(secret_reader)
    helper.chmod(0o755)
    printed += [
        run(*verb, stdin=SECRET) for verb in (("-d", "tags", image_uri), ("registry", "list"))
    ]
    docker.unlink()
    printed.append(run("-d", *by_hand, "--offline", uri, stdin=SECRET))
    printed += [run("registry", "list", "--json"), run("-d", "tags", image_uri)]
    helper.unlink()
    printed += crashed

    arguments = (tmp_path / "arguments").read_text()
    assert "helper get" in arguments
    assert "subprocess.Popen" in arguments
    encoded = "cGxhbnRlZC1zZWNyZXQ"  # where base64 happens to begin with the secret
    assert not [text for text in (*printed, arguments) if SECRET in text or encoded in text]
    wait_for(lambda: len(list((tmp_path / "state").rglob("exit"))) == 2)
    contents = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert not [path for path, data in contents.items() if SECRET.encode() in data]
    holders = [path for path, data in contents.items() if encoded.encode() in data]
    assert holders == [clean_home / ".singularity/docker-config.json"]


def test_client_certificate_from_certs_d(deck: Deck, tmp_path: Path, clean_home: Path) -> None:
    authority = make_authority(tmp_path)
    folder = tmp_path / "registry"
    folder.mkdir()
    http = {"clientcas": [str(authority.certificate)]}
    with start_registry(folder, authority=authority, tls=http) as running:
        uri = f"docker://{running.host}"
        place = clean_home / ".config/containers/certs.d" / running.host
        place.mkdir(parents=True)
        (place / "ca.crt").write_bytes(authority.certificate.read_bytes())
        assert deck("registry", "test", uri) == ExitCode.NETWORK
        certificate, key = authority.issue(tmp_path, "client", "extendedKeyUsage=clientAuth")
        (place / "client.cert").write_bytes(certificate.read_bytes())
        (place / "client.key").write_bytes(key.read_bytes())
        assert deck("registry", "test", uri) == 0


def test_proxy_of_the_environment(
    deck: Deck, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that only the proxy can reach; what NO_PROXY names goes around it."""
    registry.push(image([layer()]), "app/proxied")
    with flaky_proxy(registry.host) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.host}")
        assert deck("tags", "--no-https", "docker://far.invalid/app/proxied") == 0
        assert deck.out.startswith("latest")
        assert proxy.seen(r"GET http://far\.invalid/v2/app/proxied/tags/list")
        monkeypatch.setenv("NO_PROXY", "far.invalid")
        assert deck("tags", "--no-https", "docker://far.invalid/app/proxied") == ExitCode.NETWORK
        assert "far.invalid" in deck.err


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, ExitCode.AUTHENTICATION),
        (403, ExitCode.AUTHENTICATION),
        (404, ExitCode.NOT_FOUND),
        (429, ExitCode.NETWORK),
        (500, ExitCode.NETWORK),
    ],
)
def test_what_the_registry_answers_is_the_exit_status(
    deck: Deck, registry: Registry, status: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.registry.retry._FIRST_WAIT_S", 0.001)
    body = b'{"errors":[{"code":"X","message":"why it said so"}]}'
    headers = {"content-type": "application/json"}
    fault = Fault(
        path="tags/list", kind="status", status=status, times=9, body=body, headers=headers
    )
    with flaky_proxy(registry.host, fault) as proxy:
        assert deck("tags", f"docker://{proxy.host}/app/any") == expected
    assert "ERROR:" in deck.err
    assert status == 401 or "why it said so" in deck.err
