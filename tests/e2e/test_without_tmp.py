"""Neither /tmp nor $TMPDIR is needed: images are larger than either often is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.containers import SIFDECK
from tests.support.images import busybox_layer, image, write_layout
from tests.support.squashfs import need_root

VERBS = """
pull @a.sif oci:@layout
pull --native @n.sif oci:@layout
convert --keep-layers oci:@layout @k.sif
convert @a.sif docker-archive:@d.tar
convert docker-archive:@d.tar @b.sif
convert --sandbox @n.sif @folder
convert @folder oci-archive:@o.tar
copy oci:@layout oci-archive:@copied.tar
overlay create @a.sif
overlay sync @a.sif
overlay seal @a.sif
data package @folder/etc @data.sif
sif add @a.sif @folder/etc/group --datatype 7
verify @a.sif
diff @k.sif @b.sif
cp @b.sif:/etc/group @here
"""
"""The @ is the test's folder."""

PROGRAM = """
import sys
from app.cli.main import main
for line in sys.stdin:
    status = main(["-q", *line.split()])
    assert status == 0, (status, line)
"""


def test_all_works_without_a_place_for_temporary_files(tmp_path: Path) -> None:
    need_root()
    write_layout(tmp_path / "layout", image([busybox_layer()], config={"Cmd": ["true"]}))
    script = """
        mount --bind "$1" /mnt && shift
        for place in /tmp /var/tmp; do  # what is there stays: this checkout may be
            mount --bind $place $place && mount -o remount,bind,ro $place
        done
        if touch /tmp/file 2>/dev/null; then exit 99; fi
        cd /tmp
        "$@" && exec "$SIFDECK" exec --data /mnt/data.sif:/data /mnt/b.sif cat /data/group
    """
    argv = ["unshare", "--mount", "sh", "-euc", script, "sh", str(tmp_path)]
    environment = os.environ | {
        "HOME": "/mnt/home",
        "TMPDIR": "/nowhere",
        "SIFDECK_CACHE_DIR": "/mnt/cache",
        "SIFDECK": SIFDECK,
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(
        [*argv, sys.executable, "-c", PROGRAM],
        input=VERBS.strip().replace("@", "/mnt/"), env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "appuser:x:1000:"
