"""Registry logins: where they are looked for, in order, and what was found.

1. user and password given on the command line,
2. the file of ``--authfile``,
3. ``SIFDECK_``, ``SINGULARITY_``, ``APPTAINER_DOCKER_USERNAME`` and ``_PASSWORD``, and the
   plain ``DOCKER_USERNAME`` and ``DOCKER_PASSWORD``,
4. the auth files of SingularityCE, Apptainer, Podman and Docker, see :func:`auth_files`.

An auth file has Docker's form, ``{"auths": {KEY: {"auth": BASE64}}}``; its ``credHelpers``
and ``credsStore`` name programs that know the secrets of some keys, or of all.  Keys are
``host/path``, longest first, then ``host``; Docker Hub's is ``https://index.docker.io/v1/``.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from backend.errors import AuthenticationError, FormatError, ToolError
from backend.escape import one_line
from backend.oci.json import Node, load
from backend.paths import singularity_home
from backend.reference import DOCKER_HUB
from backend.registry import helpers
from backend.registry.secret import Secret
from backend.settings import PREFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_log = logging.getLogger(__name__)

HUB_KEY = "https://index.docker.io/v1/"
"""Docker Hub's key in every auth file, for historical reasons."""

_MAX_FILE = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who we are to a registry.

    Attributes:
        username: Empty for tokens.
        secret: Password, identity token or registry token.
        kind: ``identity`` is exchanged for access tokens, ``registry`` is one.
        source: Where it was found, for people: a file, a variable, a program.
    """

    username: str
    secret: Secret
    kind: Literal["password", "identity", "registry"] = "password"
    source: str = ""

    def basic(self) -> str:
        """Return the value of an ``Authorization`` header for Basic authentication."""
        pair = f"{self.username}:{self.secret.reveal()}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthFile:
    """A place where logins are stored.

    Attributes:
        path: Need not exist.
        readers: The tools that look there, for people.
    """

    path: Path
    readers: str


def auth_files() -> tuple[AuthFile, ...]:
    """Return the auth files that are looked into, in order."""
    places = [
        AuthFile(path=singularity_home() / "docker-config.json", readers="sifdeck, singularity"),
        AuthFile(
            path=Path(os.environ.get("APPTAINER_CONFIGDIR") or "~/.apptainer").expanduser()
            / "docker-config.json",
            readers="sifdeck, apptainer",
        ),
    ]
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        places.append(AuthFile(path=Path(named), readers="sifdeck, podman, skopeo, buildah"))
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        path = Path(runtime) / "containers/auth.json"
        places.append(AuthFile(path=path, readers="sifdeck, podman, skopeo, buildah"))
    config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    docker = Path(os.environ.get("DOCKER_CONFIG") or "~/.docker").expanduser()
    places += [
        AuthFile(path=config / "containers/auth.json", readers="sifdeck, podman, skopeo, buildah"),
        AuthFile(path=docker / "config.json", readers="sifdeck, docker, podman, skopeo, oras"),
    ]
    return tuple(places)


class Credentials:
    """Finds the login for a repository.

    Args:
        login: Given by hand; used for every registry, nothing else is looked at.
        authfile: ``--authfile``; looked into first.  It must be readable.
        places: The only files to look into; None for the environment and :func:`auth_files`.

    Attributes:
        troubles: What kept files and helpers from being read so far, in sentences.
    """

    def __init__(
        self,
        *,
        login: Login | None = None,
        authfile: Path | None = None,
        places: tuple[AuthFile, ...] | None = None,
    ) -> None:
        self._given = login
        self._authfile = authfile
        self._places = places
        self.troubles: list[str] = []

    async def find(self, registry: str, repository: str = "") -> Login | None:
        """Return the login for a repository of ``registry``, or None to go there as nobody.

        Raises:
            AuthenticationError: ``--authfile`` cannot be read.
        """
        if self._given:
            return self._given
        if self._authfile:
            found = await self._in_file(self._authfile, registry, repository)
            if found:
                return found
        environment = environment_login()
        if environment and self._places is None:
            return environment
        for place in auth_files() if self._places is None else self._places:
            try:
                found = await self._in_file(place.path, registry, repository)
            except AuthenticationError as error:
                self._note(f"{error.message}: {error.why}")
                continue
            if found:
                return found
        return None

    async def _in_file(self, path: Path, registry: str, repository: str) -> Login | None:
        """Return the login that one auth file, or a program that it names, has for a repository.

        Raises:
            AuthenticationError: It is not there, or cannot be read.
        """
        try:
            root = read_auth_file(path)
            if root is None and path == self._authfile:
                raise AuthenticationError(f"{path} is not there", hint="check --authfile")
            return await self._in_document(root, path, registry, repository) if root else None
        except (FormatError, OSError) as error:
            raise AuthenticationError(
                f"{path} cannot be read", why=_reason(error), hint="mend it, or move it away"
            ) from error

    async def _in_document(
        self, root: Node, path: Path, registry: str, repository: str
    ) -> Login | None:
        keys = lookup_keys(registry, repository)
        for key, program in _programs(root, keys, registry.lower()):
            try:
                found = await helpers.get(program, key)
            except (ToolError, FormatError) as error:
                self._note(f"{path}: {error.message}")
                continue
            if found:
                return _from_helper(found, f"docker-credential-{program}, named in {path}")
        auths = root.get("auths")
        entries = auths.object() if auths else {}
        for key in keys:
            if isinstance(entries.get(key), dict):
                login = _entry_login(Node(entries[key], f"auths.{key}"), source=str(path))
                if login:
                    return login
        return None

    def _note(self, trouble: str) -> None:
        """Warn of what keeps logins from being found, once."""
        shown = one_line(trouble)
        if shown not in self.troubles:
            self.troubles.append(shown)
            _log.warning("%s", shown)


def given_login(username: str, password: str) -> Login:
    """Return the login of a user name and password that were given by hand."""
    return Login(username=username, secret=Secret(password), source="given by hand")


def environment_login() -> Login | None:
    """Return the login that the environment names, or None."""
    for prefix in (*PREFIXES, ""):
        username = os.environ.get(f"{prefix}DOCKER_USERNAME")
        password = os.environ.get(f"{prefix}DOCKER_PASSWORD")
        if username and password:
            source = f"${prefix}DOCKER_USERNAME"
            return Login(username=username, secret=Secret(password), source=source)
    return None


def read_auth_file(path: Path) -> Node | None:
    """Return the content of an auth file, or None when there is none.

    Raises:
        FormatError: It is not JSON with an object at its top.
        OSError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        return None
    if len(data) > _MAX_FILE:
        raise FormatError(f"the file is larger than {_MAX_FILE >> 20} MiB")
    root = load(data or b"{}", "the file")
    if not isinstance(root.value, dict):
        raise root.fail("an object")
    return root


def lookup_keys(registry: str, repository: str = "") -> tuple[str, ...]:
    """Return the keys under which a login may stand, most particular first."""
    host = registry.lower()
    parts = [part for part in repository.split("/") if part]
    paths = ["/".join([host, *parts[:count]]) for count in range(len(parts), 0, -1)]
    if host == DOCKER_HUB:
        hub = (HUB_KEY, "docker.io", "index.docker.io", "https://index.docker.io/v1")
        return (*paths, *hub, "registry-1.docker.io")
    return (*paths, host, *addresses_of(host))


def addresses_of(key: str) -> tuple[str, ...]:
    """Return the other forms of a key ``host[/path]``: docker login of old wrote addresses."""
    schemes = (f"https://{key}", f"http://{key}")
    tails = ("", "/", "/v1/", "/v2/", "/v1", "/v2")
    return (f"{key}/", *(f"{scheme}{tail}" for scheme in schemes for tail in tails))


def _reason(error: FormatError | OSError) -> str:
    """Return why a file cannot be read, without its name."""
    return error.message if isinstance(error, FormatError) else error.strerror or str(error)


def _programs(root: Node, keys: Iterable[str], host: str) -> Iterator[tuple[str, str]]:
    """Yield (key, helper) for the programs that an auth file names, most particular first.

    The store for everything is asked once, by host, as Docker does: each question is a process.
    """
    helper_node = root.get("credHelpers")
    particular = helper_node.mapping() if helper_node else {}
    for key in keys:
        if particular.get(key):
            yield key, particular[key]
    store = root.get("credsStore")
    key = HUB_KEY if host == DOCKER_HUB else host
    if store and store.text() and key not in particular:
        yield key, store.text()


def _from_helper(found: helpers.HelperLogin, source: str) -> Login:
    # Docker's convention: a secret under this name is an identity token.
    if found.username == "<token>":
        return Login(username="", secret=found.secret, kind="identity", source=source)
    return Login(username=found.username, secret=found.secret, source=source)


def _entry_login(entry: Node, *, source: str) -> Login | None:
    """Return the login of one member of ``auths``; None when it holds no secret."""
    texts = {name: entry.get(name) for name in ("identitytoken", "registrytoken", "auth")}
    if token := texts["identitytoken"]:
        return Login(username="", secret=Secret(token.text()), kind="identity", source=source)
    if token := texts["registrytoken"]:
        return Login(username="", secret=Secret(token.text()), kind="registry", source=source)
    encoded = texts["auth"]
    if encoded is None or not encoded.text():
        return _plain_login(entry, source=source)
    try:
        # Some wrap it, which Docker's reader does not mind.
        compact = "".join(encoded.text().split())
        decoded = base64.b64decode(compact, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise FormatError(f"{entry.path}.auth is not base64 of user:password") from error
    username, colon, password = decoded.partition(":")
    if not colon:
        raise FormatError(f"{entry.path}.auth is not base64 of user:password")
    # Docker on Windows once padded with NUL.
    return Login(username=username, secret=Secret(password.rstrip("\0")), source=source)


def _plain_login(entry: Node, *, source: str) -> Login | None:
    """Return the login of an entry that has ``username`` and ``password`` unencoded."""
    username, password = entry.get("username"), entry.get("password")
    if username is None or password is None:
        return None
    return Login(username=username.text(), secret=Secret(password.text()), source=source)
