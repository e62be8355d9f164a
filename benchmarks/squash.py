"""Convert the layers of an OCI layout to one squashfs: the part of a pull that is ours alone.

python -m benchmarks.squash LAYOUT OUT [COMPRESSION] [THREADS]
"""

from __future__ import annotations

import functools
import io
import json
import sys
from pathlib import Path

from backend.layers.squash import LayerSource, squash_layers
from backend.squashfs.compression import parse_compression


def layers_of(layout: Path) -> list[LayerSource]:
    """Return the layers of the layout's first image, base first."""

    def blob(descriptor: dict[str, str]) -> Path:
        return layout / "blobs" / descriptor["digest"].replace(":", "/")

    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(blob(index["manifests"][0]).read_bytes())
    config = json.loads(blob(manifest["config"]).read_bytes())
    return [
        LayerSource(
            media_type=layer["mediaType"],
            open=functools.partial(io.FileIO, blob(layer)),
            diff_id=diff_id,
            size=layer["size"],
        )
        for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True)
    ]


def main(layout: str, target: str, compression: str = "zstd", threads: str = "") -> None:
    """Convert."""
    with Path(target).open("w+b") as out:
        squash_layers(
            layers_of(Path(layout)),
            out,
            compression=parse_compression(compression),
            threads=int(threads) if threads else None,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
