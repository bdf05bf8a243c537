"""Packs the built site as one archive, to be read without a network: python docs/archive.py [SITE] [FOLDER]

SITE is the folder of the built site (docs/_build/html), FOLDER where minitransformer-docs-VERSION.zip goes (dist).
Unpack it anywhere and open index.html in a browser. The same site gives the same archive, to the last bit.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import minitransformer

DOCS = Path(__file__).resolve().parent
LEFT_OUT = {".buildinfo", ".doctrees"}  # what Sphinx keeps for its next build


def pack(site: Path, folder: Path) -> Path:
    """Write the archive of `site` into `folder`, and return its path."""
    name = f"minitransformer-docs-{minitransformer.__version__}"
    files = [path for path in sorted(site.rglob("*")) if path.is_file()]
    files = [path for path in files if path.relative_to(site).parts[0] not in LEFT_OUT]
    if site / "index.html" not in files:
        sys.exit(f"{site}: expected the built site, got a folder without index.html")
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{name}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for path in files:
            entry = zipfile.ZipInfo(
                f"{name}/{path.relative_to(site).as_posix()}"
            )  # dated 1980, as ZipInfo has it
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return archive


if __name__ == "__main__":
    defaults = [str(DOCS / "_build" / "html"), "dist"]
    site, folder = (Path(path) for path in [*sys.argv[1:], *defaults[len(sys.argv) - 1 :]])
    print(pack(site, folder))
