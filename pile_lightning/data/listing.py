"""Which files a path, a folder, a glob or a URL stands for, and what it holds besides."""

import hashlib
import json
import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import Path
from typing import Any

from pile_lightning.data.compression import CODECS
from pile_lightning.data.file import STREAMED, File, file_system, is_url, protocol, suffixes_of
from pile_lightning.data.folder import kind_of, local_file, walk
from pile_lightning.data.globs import expand

__all__ = ["File", "Listing", "list_files"]

_STAMPS = ("ETag", "etag", "md5Hash", "Content-MD5", "LastModified", "Last-Modified", "mtime")
_KINDS_SHOWN = 12
_SNIFFED_BYTES = 1024


@dataclass(frozen=True)
class Listing:
    """What a path stands for."""

    files: list[File] = field(default_factory=list)
    """Those to read, sorted by name, also those with a problem."""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Names of what is there and not read, by suffix or kind."""

    def leave_out(self, kind: str, name: str) -> None:
        """Note something that is not read."""
        self.left_out.setdefault(kind, []).append(name)

    def describe_left_out(self) -> str:
        """Return what is not read in a line: how many of each kind, and which, if it is one.

        Example:
            >>> listing = Listing()
            >>> for name in ("a.png", "b.png", "c.bin"):
            ...     listing.leave_out(name[1:], name)
            >>> listing.describe_left_out()
            '2 .png, 1 .bin (c.bin)'
        """
        kinds = sorted(self.left_out.items(), key=lambda pair: (-len(pair[1]), pair[0]))
        told = [
            f"{len(names)} {kind}{f' ({names[0]})' if len(names) == 1 else ''}"
            for kind, names in kinds[:_KINDS_SHOWN]
        ]
        others = sum(len(names) for _, names in kinds[_KINDS_SHOWN:])
        return ", ".join(told + ([f"{others} of other kinds"] if others else []))


def list_files(path: str, suffixes: Sequence[str]) -> Listing:
    """Return the files that a path stands for.

    Args:
        path: A file, a folder, a glob, or the URL of one.
        suffixes: What a name ends in to be read in a folder, ``""`` for names without a suffix,
            read where they begin as text; a file or glob is taken as it is.

    Raises:
        FileNotFoundError: Where there is nothing to read, with what there is instead.
    """
    path = path.removeprefix("file://")
    listing = _list_url(path, suffixes) if is_url(path) else _list_local(path, suffixes)
    if not listing.files:
        kinds = ", ".join(sorted(listing.left_out))
        seen = f"; it holds files of {kinds}" if kinds else ""
        raise FileNotFoundError(
            f"{path!r} holds no file to read: folders are searched for text, code, .jsonl, .csv "
            f"and .parquet{seen}; add such files, set suffixes, or give a glob"
        )
    listing.files.sort()
    return listing


def _list_local(path: str, suffixes: Sequence[str]) -> Listing:
    given = os.path.expanduser(path)
    problem = kind_of(given)
    if not problem:
        return Listing([local_file(given, os.path.basename(given))])
    if problem == "a folder":
        listing = Listing()
        found = walk(given, lambda name: not name.startswith("."), listing.leave_out)
        _choose(found, suffixes, listing)
        return listing
    if has_magic(path):
        return Listing(expand(path))
    if not os.path.lexists(given):
        raise FileNotFoundError(
            f"{path!r} does not exist (looked in {Path.cwd()}); give a file, a folder, or a glob "
            f"such as 'books/**/*.rst'"
        )
    raise FileNotFoundError(
        f"{path!r} cannot be read ({problem}); give a file, a folder, or a glob such as "
        f"'books/**/*.rst'"
    )


def _list_url(url: str, suffixes: Sequence[str]) -> Listing:
    streamed = protocol(url) in STREAMED
    fs, path = file_system(url)
    fs.invalidate_cache()  # or files that are added later stay unseen
    try:
        # "?" begins the query of a URL
        if any(sign in path for sign in ("*[" if streamed else "*[?")):
            infos = fs.glob(path, detail=True)
            root = path[: min(path.find(sign) for sign in "*[?" if sign in path)]
            root = root.rpartition("/")[0]
        # to ask an http server whether a file is a folder may load the file
        elif path.endswith("/") or (not streamed and fs.isdir(path)):
            infos, root = fs.find(path, detail=True), path.rstrip("/")
        else:
            return Listing([_remote_file(fs, fs.info(path), path, posixpath.dirname(path))])
    except FileNotFoundError as error:
        reason = error.__cause__ or error
        raise FileNotFoundError(f"{url!r} does not exist or cannot be reached: {reason}") from error
    except Exception as error:
        raise OSError(f"cannot list {url!r}: {error}") from error
    files = [
        _remote_file(fs, info, name, root)
        for name, info in infos.items()
        if info.get("type") != "directory"
    ]
    if root != path.rstrip("/"):  # a glob
        return Listing(files)
    listing = Listing()
    shown = (f for f in files if not any(part.startswith(".") for part in f.name.split("/")))
    _choose(shown, suffixes, listing)
    return listing


def _choose(found: Any, suffixes: Sequence[str], listing: Listing) -> None:
    """Sort the files of a folder into those that are read and those that are not."""
    wanted = {suffix.lower() for suffix in suffixes}
    for file in found:
        own = suffixes_of(file.name)
        # of compressed files the suffix before counts
        kinds = own[-2:] if own and own[-1] in CODECS else own[-1:]
        if (kinds[0] if kinds else "") not in wanted and not file.name.endswith("/"):
            listing.leave_out(file.problem or "".join(kinds) or "without a suffix", file.name)
        elif kinds or file.problem or _begins_as_text(file):
            listing.files.append(file)
        else:
            listing.leave_out("without a suffix", file.name)


def _begins_as_text(file: File) -> bool:
    if not file.is_local:
        return False
    try:
        with open(file.path, "rb", buffering=0) as opened:
            return b"\0" not in opened.read(_SNIFFED_BYTES)
    except OSError:
        return True  # reading it says what is wrong


def _remote_file(fs: Any, info: dict[str, Any], path: str, root: str) -> File:
    name = path.removeprefix(root).lstrip("/")
    stamps = {key: str(info[key]) for key in (*_STAMPS, "size", "created") if key in info}
    stamp = hashlib.sha256(json.dumps(stamps, sort_keys=True).encode()).hexdigest()[:20]
    return File(name, fs.unstrip_protocol(path), info.get("size"), stamp)
