"""Devices for containers: nodes by path, CDI names, and what graphics processors need.

Container Device Interface 0.6: a JSON or YAML file names devices as ``vendor/class=name`` and says
which nodes, mounts, variables and hooks a container gets for them.
"""

from __future__ import annotations

import glob
import os
import stat
import subprocess
from typing import TYPE_CHECKING

from backend.errors import FormatError, LaunchError, UsageError
from backend.escape import quoted
from backend.oci.json import load
from backend.runtime.spec import LIBRARIES, Grants

if TYPE_CHECKING:
    from backend.oci.json import Node
    from backend.runtime.options import RunOptions

_CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")
_MAX_CDI = 4 << 20
_MAX_TIMEOUT_S = 3600
_EDITS = frozenset({"deviceNodes", "mounts", "env", "hooks"})
"""What a CDI file may change; those of version 0.7 are refused by name."""
_STAGES = frozenset(
    {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}
)

_NV_NODES = ("/dev/nvidia*", "/dev/nvidia-caps/*")
_NV_LIBRARIES = (
    "libcuda.so libcudadebugger.so libEGL_nvidia.so libGLESv1_CM_nvidia.so libGLESv2_nvidia.so "
    "libGLX_nvidia.so libnvcuvid.so libnvidia-allocator.so libnvidia-cfg.so libnvidia-egl-gbm.so "
    "libnvidia-eglcore.so libnvidia-encode.so libnvidia-fbc.so libnvidia-glcore.so "
    "libnvidia-glsi.so libnvidia-glvkspirv.so libnvidia-gpucomp.so libnvidia-ml.so "
    "libnvidia-ngx.so libnvidia-nvvm.so libnvidia-opencl.so libnvidia-opticalflow.so "
    "libnvidia-ptxjitcompiler.so libnvidia-rtcore.so libnvidia-tls.so libnvoptix.so"
)
_NV_PROGRAMS = "nvidia-smi nvidia-debugdump nvidia-persistenced nvidia-cuda-mps-control"
_NV_SOCKETS = ("/var/run/nvidia-persistenced/socket", "/tmp/nvidia-mps")
_ROCM_NODES = ("/dev/kfd", "/dev/dri/*")
_ROCM_LIBRARIES = (
    "libamd_comgr.so libamdhip64.so libhsa-runtime64.so libhsakmt.so libhipblas.so libhipfft.so "
    "libhiprand.so libhipsparse.so libMIOpen.so libOpenCL.so librccl.so librocblas.so "
    "librocfft.so librocm_smi64.so librocrand.so librocsolver.so librocsparse.so libdrm_amdgpu.so"
)
_ROCM_PROGRAMS = "rocm-smi rocminfo"
_LISTS = ("/etc/sifdeck", "/etc/singularity", "/usr/local/etc/singularity", "/etc/apptainer")
"""Where an administrator's own nvliblist.conf or rocmliblist.conf may be."""


def find_devices(options: RunOptions) -> Grants:
    """Return what the options ask for.

    Raises:
        UsageError: A device is not there, or its name has another form.
        FormatError: A CDI file is broken.
        LaunchError: There is no graphics processor of the kind asked for.
    """
    grants = Grants()
    wanted = [name for name in options.devices if not name.startswith("/")]
    for path in options.devices:
        if path.startswith("/"):
            grants.nodes.append(_node(path))
    if wanted:
        _find_cdi(wanted, options.cdi_folders or _CDI_FOLDERS, grants)
    if "nv" in options.gpu:
        _add_gpu(grants, "NVIDIA", _NV_NODES, _listed("nv") or f"{_NV_LIBRARIES} {_NV_PROGRAMS}")
        sockets = [path for path in _NV_SOCKETS if os.path.exists(path)]
        grants.mounts += [(path, path, ()) for path in sockets]
    if "rocm" in options.gpu:
        words = _listed("rocm") or f"{_ROCM_LIBRARIES} {_ROCM_PROGRAMS}"
        _add_gpu(grants, "ROCm", _ROCM_NODES, words)
    for path in options.libraries:
        grants.mounts.append((path, f"{LIBRARIES}/{os.path.basename(path)}", ("ro",)))
    return grants


def _node(text: str) -> tuple[str, str]:
    host_path, _, container_path = text.partition(":")
    try:
        mode = os.stat(host_path).st_mode
    except OSError as error:
        raise UsageError(f"no such device: {quoted(host_path)}") from error
    if not stat.S_ISCHR(mode) and not stat.S_ISBLK(mode):
        raise UsageError(f"{quoted(host_path)} is no device")
    return host_path, container_path or host_path


# -- CDI ---------------------------------------------------------------------------------


def _find_cdi(wanted: list[str], folders: tuple[str, ...], grants: Grants) -> None:
    known: dict[str, tuple[Node, Node]] = {}
    broken: list[str] = []
    for folder in folders:  # a later folder's device replaces an earlier one's
        for path in sorted(glob.glob(f"{glob.escape(folder)}/*")):
            if path.endswith((".json", ".yaml", ".yml")):
                try:
                    known.update(_read_cdi(path))
                except FormatError as error:  # of another device, perhaps
                    broken.append(str(error))
    edited: set[int] = set()
    for name in wanted:
        kind, equals, device = name.partition("=")
        if not equals or "/" not in kind or not device:
            raise UsageError(
                f"not a device: {quoted(name, limit=80)}",
                hint="write VENDOR/CLASS=NAME, or the path of a node in /dev",
            )
        if name not in known:
            names = ", ".join(sorted(known)[:20]) or "none"
            raise UsageError(
                f"no CDI device {quoted(name, limit=80)} in {', '.join(folders)}",
                why="; ".join(broken),
                hint=f"these are there: {names}; more folders with --cdi-dirs",
            )
        document, entry = known[name]
        if id(document) not in edited:
            edited.add(id(document))
            _edit(document, grants)
        _edit(entry, grants)


def _read_cdi(path: str) -> dict[str, tuple[Node, Node]]:
    """Return the devices of one CDI file by their full names, with the file's document."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_CDI)
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}") from error
    document = load(data if path.endswith(".json") else _from_yaml(data, path), path)
    kind = document.need("kind").text()
    return {
        f"{kind}={entry.need('name').text()}": (document, entry)
        for entry in document.need("devices").items()
    }


def _from_yaml(data: bytes, path: str) -> bytes:
    """Return a YAML document as JSON; every scalar is text, and there are no references."""
    import json

    import yaml

    class Loader(yaml.BaseLoader):  # type: ignore[misc]  # no stubs
        def compose_node(self, parent: object, index: object) -> object:
            if self.check_event(yaml.AliasEvent):  # a few lines of these can stand for gigabytes
                raise yaml.YAMLError("references are not taken")
            return super().compose_node(parent, index)

    try:
        return json.dumps(yaml.load(data, Loader)).encode()  # noqa: S506  (texts only)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise FormatError(f"{path} is no YAML: {quoted(str(error))}") from error


def _edit(owner: Node, grants: Grants) -> None:
    edits = owner.get("containerEdits")
    if edits is None:
        return
    if unknown := edits.object().keys() - _EDITS:
        raise LaunchError(f"cannot give what a CDI file asks for: {', '.join(sorted(unknown))}")
    for node in _items(edits, "deviceNodes"):
        path = node.need("path").text()
        host_path = node.get("hostPath")
        grants.nodes.append((_node(host_path.text() if host_path else path)[0], path))
    for mount in _items(edits, "mounts"):
        options = mount.get("options")
        grants.mounts.append(
            (
                mount.need("hostPath").text(),
                mount.need("containerPath").text(),
                options.texts() if options else (),
            )
        )
    environment = edits.get("env")
    grants.environment += environment.texts() if environment else ()
    for hook in _items(edits, "hooks"):
        stage = hook.need("hookName").text()
        if stage not in _STAGES:
            raise FormatError(f"no such hook in a CDI file: {quoted(stage, limit=40)}")
        grants.hooks.setdefault(stage, []).append(_hook(hook))


def _hook(node: Node) -> dict[str, object]:
    hook: dict[str, object] = {"path": node.need("path").text()}
    for key in ("args", "env"):
        if words := node.get(key):
            hook[key] = list(words.texts())
    if timeout := node.get("timeout"):
        digits = str(timeout.value)
        if not digits.isdigit() or int(digits) > _MAX_TIMEOUT_S:
            raise FormatError(f"not a timeout in a CDI file: {quoted(digits, limit=40)}")
        hook["timeout"] = int(digits)
    return hook


def _items(edits: Node, key: str) -> list[Node]:
    found = edits.get(key)
    return found.items() if found else []


# -- graphics processors ---------------------------------------------------------------------


def _listed(kind: str) -> str:
    """Return the words of a site's library list in SingularityCE's form; empty without one."""
    for folder in _LISTS:
        try:
            with open(f"{folder}/{kind}liblist.conf", encoding="utf-8") as file:
                lines = file.read(_MAX_CDI).splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        return " ".join(line.partition("#")[0].strip() for line in lines)
    return ""


def _add_gpu(grants: Grants, name: str, nodes: tuple[str, ...], words: str) -> None:
    """Grant the nodes, and of ``words`` the libraries (``libX.so``) and programs that are here."""
    from backend.runtime.host import find_program

    paths = [path for pattern in nodes for path in sorted(glob.glob(pattern))]
    devices = [path for path in paths if not os.path.isdir(path)]
    if not devices:
        raise LaunchError(
            f"this host has no {name} device",
            why=f"there is nothing like {' or '.join(nodes)}",
            hint="load the driver, or leave the flag out",
        )
    grants.nodes += [(path, path) for path in devices]
    libraries = [word for word in words.split() if ".so" in word]
    for path in _find_libraries(libraries):
        target = f"{LIBRARIES}/{os.path.basename(path)}"
        grants.mounts.append((path, target, ("ro",)))
    for program in words.split():
        if ".so" not in program and (path := find_program(program)):
            grants.mounts.append((path, f"/usr/bin/{program}", ("ro",)))


def _find_libraries(names: list[str]) -> list[str]:
    """Return the 64-bit libraries of this host whose names begin like ``names``."""
    from backend.runtime.host import find_program

    program = find_program("ldconfig")
    if not program:
        return []
    done = subprocess.run([program, "-p"], capture_output=True, text=True, timeout=10, check=False)
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        library, arrow, path = line.strip().partition(" => ")
        word, _, kind = library.partition(" ")
        if arrow and "64" in kind and any(word.startswith(name) for name in names):
            found.setdefault(word, path)
    return list(found.values())
