"""Says whether the contract breaks callers of the last release: buf compares it with the last tag.

    python proto/breaking.py             compare with the last tag that is an ancestor; without a tag say so and pass
    python proto/breaking.py REVISION    compare with another revision

Exits with 1, after buf's list of changes, when a caller of that revision would break.
"""

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

IMPORTED = (Path(".build/google-protos"), Path("third_party"))  # as buf.yaml names them
BUF = str(Path(sys.executable).parent / "buf")


def last_tag(root: Path) -> str | None:
    """The newest tag that is an ancestor of the commit that is checked out.

    None when there is none: in a source archive, too, which has no history.
    """
    described = subprocess.run(
        ["git", "-C", str(root), "describe", "--tags", "--abbrev=0"], capture_output=True, text=True, check=False
    )
    return described.stdout.strip() if described.returncode == 0 else None


def unpack(root: Path, revision: str, target: Path) -> None:
    """Puts the contract of a revision into a folder, with the imported protos of today."""
    archive = subprocess.run(
        ["git", "-C", str(root), "archive", revision, "buf.yaml", "proto"], capture_output=True, check=False
    )
    if archive.returncode != 0:
        raise SystemExit(archive.stderr.decode().strip())
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(target, filter="data")
    for folder in IMPORTED:
        shutil.copytree(root / folder, target / folder)


def compare(root: Path, revision: str) -> int:
    """buf's exit status for the contract below `root` against that of a revision."""
    with tempfile.TemporaryDirectory() as temporary:
        before, image = Path(temporary) / "before", Path(temporary) / "before.binpb"
        unpack(root, revision, before)
        subprocess.run([BUF, "build", "proto", "-o", str(image)], cwd=before, check=True)
        return subprocess.run([BUF, "breaking", "proto", "--against", str(image)], cwd=root, check=False).returncode


def main(arguments: list[str]) -> None:
    root = Path.cwd()
    revision = arguments[0] if arguments else last_tag(root)
    if revision is None:
        print("nothing is released yet (there is no tag): every change of the contract is free")
        return
    if compare(root, revision):
        raise SystemExit(f"the contract breaks callers of {revision}")
    print(f"the contract breaks no caller of {revision}")


if __name__ == "__main__":
    main(sys.argv[1:])
