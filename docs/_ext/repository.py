"""Links from a page to files of the repository outside docs/: a file can be downloaded, a folder is only named."""

import re
from pathlib import Path


def name_folders(app, docname, source):
    folder = Path(app.srcdir, docname).parent

    def plain(link):
        return link[1] if (folder / link[2]).is_dir() else link[0]

    source[0] = re.sub(r"\[([^\]]*)\]\(([\w./-]+)\)", plain, source[0])


def setup(app):
    app.connect("source-read", name_folders)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
