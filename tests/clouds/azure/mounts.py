"""A folder of a container that stands for a prefix of a blob container: what is written there is sent when it has come
to rest, what is deleted there is deleted, and what was there before is there at the start."""

import threading
from pathlib import Path


class Mount:
    def __init__(self, container, prefix: str, folder: Path, target: str, *, writable: bool) -> None:
        """``target``: the folder's path for the job."""
        self.container, self.prefix = container, prefix
        self.folder, self.target, self.writable = folder, target, writable
        self._known: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def fill(self) -> int:
        """The number of files that are there."""
        self.folder.mkdir(parents=True)
        for name in self.container.list_blob_names(name_starts_with=f"{self.prefix}/"):
            inner = name[len(self.prefix) + 1 :]
            path = self.folder / inner
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.container.download_blob(name).readall())
            self._known[inner] = _state(path)
        return len(self._known)

    def flush(self) -> None:
        if not self.writable:
            return
        with self._lock:
            there = {str(path.relative_to(self.folder)): path for path in self.folder.rglob("*") if path.is_file()}
            for inner, path in there.items():
                try:
                    state = _state(path)
                    if self._known.get(inner) == state:
                        continue
                    content = path.read_bytes()
                except FileNotFoundError:  # renamed in this moment
                    continue
                self.container.upload_blob(f"{self.prefix}/{inner}", content, overwrite=True)
                self._known[inner] = state
            for inner in self._known.keys() - there.keys():
                self.container.delete_blob(f"{self.prefix}/{inner}")
                del self._known[inner]


def _state(path: Path) -> tuple[int, int]:
    told = path.stat()
    return told.st_mtime_ns, told.st_size
