"""File systems of a simulated host: trees of nodes, a mount table, and a kernel's answers to bad paths.

Used by `sim.machine`, every file tool, and the shell for redirections and globbing. Contents are kept
as immutable bytes, so a snapshot of a tree shares them until a file is written.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat as stat_module
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

BLOCK_BYTES = 4096
LINKS_MAX = 40


class BlockDevice(Protocol):
    """What a device node stands for: a volume that is read and written as a whole stream."""

    @property
    def size_bytes(self) -> int: ...

    def read_device(self) -> bytes: ...

    def write_device(self, data: bytes, *, append: bool) -> None: ...


@dataclass(slots=True, eq=False)
class Node:
    """What every entry has: permission bits, owner, and a modification time in Unix seconds."""

    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0


@dataclass(slots=True, eq=False)
class File(Node):
    data: bytes = b""
    generate: Callable[[], bytes] | None = None
    store: Callable[[bytes], None] | None = None

    def content(self) -> bytes:
        return self.generate() if self.generate is not None else self.data


@dataclass(slots=True, eq=False)
class Directory(Node):
    mode: int = 0o755
    entries: dict[str, Node] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Link(Node):
    mode: int = 0o777
    target: str = ""


@dataclass(slots=True, eq=False)
class Device(Node):
    mode: int = 0o660
    device: BlockDevice | None = None  # None: a character device such as /dev/null


def blocks_bytes(size: int) -> int:
    """Bytes of whole blocks that a file of `size` bytes occupies."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def clone(node: Node) -> Node:
    """A copy of a tree that shares the file contents."""
    if isinstance(node, Directory):
        entries = {name: clone(child) for name, child in node.entries.items()}
        return Directory(node.mode, node.uid, node.gid, node.mtime, entries)
    if isinstance(node, File):
        return File(node.mode, node.uid, node.gid, node.mtime, node.content())
    if isinstance(node, Link):
        return Link(node.mode, node.uid, node.gid, node.mtime, node.target)
    assert isinstance(node, Device)
    return Device(node.mode, node.uid, node.gid, node.mtime, node.device)


class FileSystem:
    """One mountable tree. `on_grow(bytes)` is asked before new blocks are used and may raise ENOSPC."""

    def __init__(
        self,
        kind: str,
        *,
        capacity_bytes: int,
        uuid: str = "",
        label: str = "",
        root: Directory | None = None,
    ) -> None:
        self.kind = kind
        self.uuid = uuid
        self.label = label
        self.capacity_bytes = capacity_bytes
        self.root = root if root is not None else Directory()
        self.used_bytes = sum(blocks_bytes(len(n.data)) for _, n in self.walk() if isinstance(n, File))
        self.on_grow: Callable[[int], None] | None = None
        self.on_write: Callable[[str], None] | None = None

    def walk(self) -> Iterator[tuple[str, Node]]:
        """Every entry below the root with its path (no leading slash), sorted, parents first."""

        def below(directory: Directory, prefix: str) -> Iterator[tuple[str, Node]]:
            for name in sorted(directory.entries):
                child = directory.entries[name]
                yield prefix + name, child
                if isinstance(child, Directory):
                    yield from below(child, f"{prefix}{name}/")

        return below(self.root, "")

    def charge(self, new_bytes: int, old_bytes: int = 0) -> None:
        """Account for `new_bytes` of content replacing `old_bytes`. Raises OSError(ENOSPC)."""
        growth = blocks_bytes(new_bytes) - blocks_bytes(old_bytes)
        if growth > 0 and self.used_bytes + growth > self.capacity_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.on_grow is not None and new_bytes:
            # Copy on write: rewritten blocks are new ones when a snapshot shares the old.
            self.on_grow(blocks_bytes(new_bytes))
        self.used_bytes += growth


@dataclass(slots=True, eq=False)
class Mount:
    """A file system at a directory. `source` is what /proc/mounts names; `device` the volume behind it."""

    target: str
    filesystem: FileSystem
    source: str
    options: tuple[str, ...] = ()
    device: BlockDevice | None = None
    root: Directory | None = None  # a bind mount shows a directory other than the file system's root

    @property
    def top(self) -> Directory:
        return self.root if self.root is not None else self.filesystem.root


@dataclass(slots=True)
class Place:
    """Where a path leads: the mount, the directory that holds the name, and the node (None: absent)."""

    path: str
    mount: Mount
    parent: Directory | None
    name: str
    node: Node | None


@lru_cache(maxsize=4096)
def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in ("", "."))


def _error(code: int, path: str) -> OSError:
    return OSError(code, os.strerror(code), path)


class Files:
    """The tree that processes of one host see. Paths are absolute; relative ones count from `/`."""

    def __init__(self, root: FileSystem, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.mounts: list[Mount] = [Mount("/", root, "/dev/sda1", ("rw", "relatime"))]
        self._tops: tuple[list[Mount], dict[str, Mount]] = ([], {})

    # -- finding ------------------------------------------------------------------------------------

    def place(self, path: str, *, follow: bool = True) -> Place:
        """Resolve `path`; the last component may be absent. Raises as open(2) does."""
        return self._walk(path, follow, [0])

    def _seen(self) -> dict[str, Mount]:
        """The mount at each directory that has one: of several the last."""
        mounts, tops = self._tops
        if mounts != self.mounts:
            tops = {mount.target: mount for mount in self.mounts}
            self._tops = list(self.mounts), tops
        return tops

    def _walk(self, path: str, follow: bool, hops: list[int]) -> Place:
        tops = self._seen()
        mount = tops["/"]
        where, parent, name = "/", None, ""
        node: Node | None = mount.top
        trail: list[tuple[str, Mount, Directory | None, str, Node | None]] = []
        parts = _parts(path)
        for index, part in enumerate(parts):
            if part == "..":
                if trail:
                    where, mount, parent, name, node = trail.pop()
                continue
            if node is None:
                raise _error(errno.ENOENT, path)
            if not isinstance(node, Directory):
                raise _error(errno.ENOTDIR, path)
            trail.append((where, mount, parent, name, node))
            where = f"{where}/{part}" if where != "/" else f"/{part}"
            parent, name = node, part
            if (mounted := tops.get(where)) is not None:
                mount, node = mounted, mounted.top
                continue
            node = parent.entries.get(part)
            if isinstance(node, Link) and (follow or index < len(parts) - 1):
                hops[0] += 1
                if hops[0] > LINKS_MAX:
                    raise _error(errno.ELOOP, path)
                ahead = [posixpath.dirname(where), node.target, *parts[index + 1 :]]
                return self._walk(posixpath.join(*ahead), follow, hops)
        if node is not None and path.endswith("/") and not isinstance(node, Directory):
            raise _error(errno.ENOTDIR, path)
        return Place(where, mount, parent, name, node)

    def node(self, path: str, *, follow: bool = True) -> Node:
        """The entry at `path`. Raises FileNotFoundError, NotADirectoryError."""
        node = self.place(path, follow=follow).node
        if node is None:
            raise _error(errno.ENOENT, path)
        return node

    def _found(self, path: str) -> Node | None:
        try:
            return self.place(path).node
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        return self._found(path) is not None

    def is_dir(self, path: str) -> bool:
        return isinstance(self._found(path), Directory)

    def is_file(self, path: str) -> bool:
        return isinstance(self._found(path), File)

    def is_link(self, path: str) -> bool:
        try:
            return isinstance(self.place(path, follow=False).node, Link)
        except OSError:
            return False

    def is_block_device(self, path: str) -> bool:
        node = self._found(path)
        return isinstance(node, Device) and node.device is not None

    def realpath(self, path: str) -> str:
        """The path without links; only the last component may be absent."""
        return self.place(path).path

    def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted. Raises FileNotFoundError, NotADirectoryError."""
        node = self.node(path)
        if not isinstance(node, Directory):
            raise _error(errno.ENOTDIR, path)
        return sorted(node.entries)

    def mode(self, path: str, *, follow: bool = True) -> int:
        """st_mode: type and permission bits."""
        node = self.node(path, follow=follow)
        if isinstance(node, Directory):
            return stat_module.S_IFDIR | node.mode
        if isinstance(node, Link):
            return stat_module.S_IFLNK | node.mode
        if isinstance(node, Device):
            return (stat_module.S_IFBLK if node.device is not None else stat_module.S_IFCHR) | node.mode
        return stat_module.S_IFREG | node.mode

    def mount_of(self, path: str) -> Mount:
        """The mount that holds `path` or would hold it."""
        return self.place(path).mount

    # -- contents -----------------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        """The bytes of a file or device. Raises FileNotFoundError, IsADirectoryError."""
        node = self.node(path)
        if isinstance(node, Directory):
            raise _error(errno.EISDIR, path)
        if isinstance(node, Device):
            return node.device.read_device() if node.device is not None else b""
        assert isinstance(node, File)
        return node.content()

    def write(self, path: str, data: bytes, append: bool = False, mode: int = 0o644) -> None:
        """Replace (or append to) a file, creating it with `mode`; or write a device.

        Raises FileNotFoundError (no such directory), IsADirectoryError, OSError(ENOSPC, EROFS).
        """
        place = self.place(path)
        if isinstance(place.node, Directory):
            raise _error(errno.EISDIR, path)
        if isinstance(place.node, Device):
            if place.node.device is not None:
                place.node.device.write_device(data, append=append)
            return
        if place.node is None:
            if path.endswith("/"):
                raise _error(errno.EISDIR, path)
            assert place.parent is not None
            self._writable(place)
            place.parent.entries[place.name] = File(mode, mtime=int(self._clock()))
            place = self.place(path)
        node = place.node
        assert isinstance(node, File)
        if node.store is not None:
            node.store(data)
            return
        if node.generate is not None:
            raise _error(errno.EACCES, path)
        self._writable(place)
        new = node.data + data if append else data
        self._charge(place, len(data) if append else len(new), 0 if append else len(node.data), path)
        node.data = new
        node.mtime = int(self._clock())

    def _charge(self, place: Place, new: int, old: int, path: str) -> None:
        try:
            place.mount.filesystem.charge(new, old)
        except OSError as error:
            raise _error(error.errno or errno.EIO, path) from None

    def _writable(self, place: Place) -> None:
        if "ro" in place.mount.options:
            raise _error(errno.EROFS, place.path)
        filesystem = place.mount.filesystem
        if filesystem.kind in ("proc", "sysfs"):
            raise _error(errno.EPERM, place.path)
        if filesystem.on_write is not None:
            filesystem.on_write(place.path)

    def _absent(self, path: str, *, trailing: bool = False) -> tuple[Place, Directory]:
        place = self.place(path.rstrip("/") if trailing else path, follow=False)
        if place.node is not None or place.parent is None:
            raise _error(errno.EEXIST, path)
        self._writable(place)
        return place, place.parent

    def add(self, path: str, node: Node) -> None:
        """Put `node` at a path that is free. Raises FileExistsError, FileNotFoundError."""
        place, parent = self._absent(path)
        if isinstance(node, File):
            self._charge(place, len(node.data), 0, path)
        parent.entries[place.name] = node

    # -- structure ----------------------------------------------------------------------------------

    def mkdir(self, path: str, *, parents: bool = False, mode: int = 0o755) -> None:
        """Make a directory; with `parents` also those above it, and it may exist already."""
        if parents:
            if self.is_dir(path):
                return
            above = posixpath.dirname(path.rstrip("/"))
            if above not in ("", "/") and not self.is_dir(above):
                self.mkdir(above, parents=True)
        place, parent = self._absent(path, trailing=True)
        parent.entries[place.name] = Directory(mode, mtime=int(self._clock()))

    def symlink(self, target: str, path: str) -> None:
        """Make a symbolic link at `path`. Raises FileExistsError."""
        place, parent = self._absent(path)
        parent.entries[place.name] = Link(mtime=int(self._clock()), target=target)

    def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove an entry; a directory must be empty unless `recursive`. Raises EBUSY on a mount point."""
        place = self.place(path, follow=False)
        if place.node is None:
            raise _error(errno.ENOENT, path)
        if place.parent is None or any(self._covers(place.path, mount) for mount in self.mounts):
            raise _error(errno.EBUSY, path)
        if isinstance(place.node, Directory) and place.node.entries and not recursive:
            raise _error(errno.ENOTEMPTY, path)
        self._writable(place)
        self._release(place.mount.filesystem, place.node)
        del place.parent.entries[place.name]

    @staticmethod
    def _covers(path: str, mount: Mount) -> bool:
        return mount.target == path or mount.target.startswith(path.rstrip("/") + "/")

    def _release(self, filesystem: FileSystem, node: Node) -> None:
        if isinstance(node, File):
            filesystem.used_bytes -= blocks_bytes(len(node.data))
        elif isinstance(node, Directory):
            for child in node.entries.values():
                self._release(filesystem, child)

    def rename(self, source: str, target: str) -> None:
        """rename(2): replaces a file; raises OSError(EXDEV) between file systems."""
        old = self.place(source, follow=False)
        new = self.place(target, follow=False)
        if old.node is None or old.parent is None:
            raise _error(errno.ENOENT, source)
        if new.parent is None:
            raise _error(errno.EBUSY, target)
        if old.mount.filesystem is not new.mount.filesystem:
            raise _error(errno.EXDEV, target)
        if any(self._covers(old.path, mount) for mount in self.mounts):
            raise _error(errno.EBUSY, source)
        if new.path == old.path:
            return
        if new.path.startswith(old.path + "/"):
            raise _error(errno.EINVAL, target)
        if isinstance(new.node, Directory):
            if not isinstance(old.node, Directory):
                raise _error(errno.EISDIR, target)
            if new.node.entries:
                raise _error(errno.ENOTEMPTY, target)
        elif new.node is not None and isinstance(old.node, Directory):
            raise _error(errno.ENOTDIR, target)
        self._writable(old)
        if new.node is not None:
            self._release(new.mount.filesystem, new.node)
        del old.parent.entries[old.name]
        new.parent.entries[new.name] = old.node

    # -- mounts -------------------------------------------------------------------------------------

    def attach(self, mount: Mount) -> None:
        """Put a mount on top of its target directory."""
        self.mounts.append(mount)

    def detach(self, target: str) -> Mount | None:
        """Take the topmost mount at `target` away; None when there is none. Raises OSError(EBUSY)."""
        for index in range(len(self.mounts) - 1, 0, -1):
            mount = self.mounts[index]
            if mount.target == target:
                if any(m.target.startswith(target + "/") for m in self.mounts[index + 1 :]):
                    raise _error(errno.EBUSY, target)
                return self.mounts.pop(index)
        return None
