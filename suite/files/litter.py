"""Files and folders that systems leave behind: neither the user's nor ours."""

from __future__ import annotations

from typing import Iterable

LITTER = {  # in lower case
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "__pycache__", "lost+found"),
    *("$recycle.bin", "system volume information", "@eadir", "@tmp", "@recycle", "#recycle", "#snapshot"),
    *("network trash folder", "temporary items", "thevolumesettingsfolder"),
}


MARK = ":zone.identifier"  # behind the name of each file that Windows downloaded, where WSL copied it


def visible(names: Iterable[str]) -> list[str]:
    """The names but for hidden ones and LITTER."""
    return [
        name
        for name in names
        if not name.startswith(".") and name.lower() not in LITTER and not name.lower().endswith(MARK)
    ]
