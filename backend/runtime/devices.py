"""Devices for containers: nodes by path, CDI names, and what graphics processors need.

Container Device Interface 0.6: a JSON file names devices as ``vendor/class=name`` and says
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

_NV_NODES = ("/dev/nvidia*", "/dev/nvidia-caps/*")
_NV_LIBRARIES = (
    "libcuda.so libcudadebugger.so libEGL_nvidia.so libGLESv1_CM_nvidia.so libGLESv2_nvidia.so "
    "libGLX_nvidia.so libnvcuvid.so libnvidia-allocator.so libnvidia-cfg.so libnvidia-egl-gbm.so "
    "libnvidia-eglcore.so libnvidia-encode.so libnvidia-fbc.so libnvidia-glcore.so "
    "libnvidia-glsi.so libnvidia-glvkspirv.so libnvidia-gpucomp.so libnvidia-ml.so "
    "libnvidia-ngx.so libnvidia-nvvm.so libnvidia-opencl.so libnvidia-opticalflow.so "
    "libnvidia-ptxjitcompiler.so libnvidia-rtcore.so libnvidia-tls.so libnvoptix.so"
)
_NV_PROGRAMS = ("nvidia-smi", "nvidia-debugdump", "nvidia-persistenced", "nvidia-cuda-mps-control")
_ROCM_NODES = ("/dev/kfd", "/dev/dri/*")
_ROCM_LIBRARIES = (
    "libamd_comgr.so libamdhip64.so libhsa-runtime64.so libhsakmt.so libhipblas.so libhipfft.so "
    "libhiprand.so libhipsparse.so libMIOpen.so libOpenCL.so librccl.so librocblas.so "
    "librocfft.so librocm_smi64.so librocrand.so librocsolver.so librocsparse.so libdrm_amdgpu.so"
)
_ROCM_PROGRAMS = ("rocm-smi", "rocminfo")


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
        _add_gpu(grants, "NVIDIA", _NV_NODES, _NV_LIBRARIES, _NV_PROGRAMS)
    if "rocm" in options.gpu:
        _add_gpu(grants, "ROCm", _ROCM_NODES, _ROCM_LIBRARIES, _ROCM_PROGRAMS)
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
    for folder in folders:  # a later folder's device replaces an earlier one's
        for path in sorted(glob.glob(f"{glob.escape(folder)}/*.json")):
            known.update(_read_cdi(path))
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
            document = load(file.read(_MAX_CDI), path)
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}") from error
    kind = document.need("kind").text()
    return {
        f"{kind}={entry.need('name').text()}": (document, entry)
        for entry in document.need("devices").items()
    }


def _edit(owner: Node, grants: Grants) -> None:
    edits = owner.get("containerEdits")
    if edits is None:
        return
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
        members = {key: value for key, value in hook.object().items() if key != "hookName"}
        grants.hooks.setdefault(stage, []).append(members)


def _items(edits: Node, key: str) -> list[Node]:
    found = edits.get(key)
    return found.items() if found else []


# -- graphics processors ---------------------------------------------------------------------


def _add_gpu(
    grants: Grants,
    name: str,
    nodes: tuple[str, ...],
    libraries: str,
    programs: tuple[str, ...],
) -> None:
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
    for path in _find_libraries(libraries.split()):
        target = f"{LIBRARIES}/{os.path.basename(path)}"
        grants.mounts.append((path, target, ("ro",)))
    for program in programs:
        if path := find_program(program):
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
