"""The store of what is too large for a workflow's history: contents by their hash.

Whatever is stored is named by the hash of its bytes. So nothing is ever changed, the same
thing is stored once however often it is sent, and what was read is checked.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import fsspec  # pyright: ignore[reportMissingTypeStubs]  # it has none
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from agentkit.errors import ConfigurationError
from agentkit.trace.naming import digest

_KEPT = 64 * 1024 * 1024
_INLINE = 16 * 1024
_ENCODING = b"agentkit/blob"
_library: Any = fsspec


class Blobs:
    """A content-addressed store in a folder, on S3, on GCS: wherever fsspec reaches.

    Workers and clients of one task queue share it. It holds prompts, answers and results as
    they are, secrets included: encrypt it as you would a database. Nothing in it is ever
    deleted by agentkit; let objects expire after the retention of the namespace.

    Args:
        url: Such as `/srv/agentkit`, `s3://bucket/prefix`, `gs://bucket/prefix`, or
            `memory://` in a test of one process.
        **options: For the file system of fsspec, such as `key=…`.

    Raises:
        ConfigurationError: The URL has a scheme that no installed file system knows.
    """

    def __init__(self, url: str | os.PathLike[str], **options: Any) -> None:
        self.url = os.fspath(url)
        try:
            found = _library.url_to_fs(self.url, **options)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(f"blobs={self.url!r}: {error}.") from error
        self._fs, root = found
        self._root = str(root).rstrip("/")
        self._local = "file" in (self._fs.protocol if self._fs.protocol else ())
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def __repr__(self) -> str:
        return f"Blobs({self.url!r})"

    @classmethod
    def of(cls, blobs: Blobs | str) -> Blobs:
        """Return the store that an option names."""
        return blobs if isinstance(blobs, Blobs) else cls(blobs)

    def check(self) -> None:
        """Write and read a probe.

        Raises:
            ConfigurationError: The store cannot be reached, or is not writable.
        """
        probe = uuid.uuid4().hex
        try:
            self.write_now(f"probes/{probe}", b"agentkit")
            self._fs.rm_file(f"{self._root}/probes/{probe}")
        except Exception as error:
            raise ConfigurationError(
                f"The blob store {self.url!r} cannot be written: {type(error).__name__}: {error}."
            ) from error

    async def put(self, data: bytes) -> str:
        """Store bytes and return their name."""
        name = digest(data)
        if name not in self._kept:
            await self.write(_place(name), data)
            self._keep(name, data)
        return name

    async def get(self, name: str) -> bytes:
        """Return the bytes of a name.

        Raises:
            OSError: They are not there, or are not what the name says.
        """
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        data = await self.read(_place(name))
        if digest(data) != name:
            raise OSError(f"The blob {name} in {self.url!r} is damaged: its hash is another.")
        self._keep(name, data)
        return data

    async def write(self, place: str, data: bytes) -> None:
        """Write a file whole: a reader sees all of it, or nothing."""
        await asyncio.to_thread(self.write_now, place, data)

    async def read(self, place: str) -> bytes:
        """Return what a file holds."""
        return await asyncio.to_thread(self._fs.cat_file, f"{self._root}/{place}")

    async def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, sorted; none if there is no such folder."""
        try:
            paths: Any = await asyncio.to_thread(
                self._fs.ls, f"{self._root}/{folder}", detail=False, refresh=True
            )
        except FileNotFoundError:
            return []
        return sorted(str(path).rpartition("/")[2] for path in paths)

    async def remove(self, folder: str) -> None:
        """Remove a folder with all that is in it."""
        try:
            await asyncio.to_thread(self._fs.rm, f"{self._root}/{folder}", recursive=True)
        except FileNotFoundError:
            return

    def write_now(self, place: str, data: bytes) -> None:
        """Write a file whole, and block meanwhile."""
        path = f"{self._root}/{place}"
        if not self._local:
            self._fs.pipe_file(path, data)
            return
        torn = f"{path}.{uuid.uuid4().hex}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(torn, "xb") as file:
            file.write(data)
        os.replace(torn, path)

    def _keep(self, name: str, data: bytes) -> None:
        if len(data) > _KEPT // 4:
            return
        self._kept[name] = data
        self._size += len(data)
        while self._size > _KEPT:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped)


def _place(name: str) -> str:
    bare = name.removeprefix("b2:")
    return f"blobs/{bare[:2]}/{bare[2:]}"


class BlobCodec(PayloadCodec):
    """Keeps large payloads in the store, and their names in Temporal.

    Args:
        blobs: The store.
        inner: The codec of the client, such as one that encrypts: what it made is stored.
    """

    def __init__(self, blobs: Blobs, inner: PayloadCodec | None) -> None:
        self._blobs = blobs
        self._inner = inner

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Return payloads that are small."""
        if self._inner is not None:
            payloads = await self._inner.encode(payloads)
        return [await self._stored(one) for one in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Reverse `encode`."""
        whole = [await self._whole(one) for one in payloads]
        return whole if self._inner is None else await self._inner.decode(whole)

    async def _stored(self, payload: Payload) -> Payload:
        if len(payload.data) <= _INLINE:
            return payload
        name = await self._blobs.put(payload.SerializeToString(deterministic=True))
        return Payload(metadata={"encoding": _ENCODING}, data=name.encode())

    async def _whole(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != _ENCODING:
            return payload
        return Payload.FromString(await self._blobs.get(payload.data.decode()))
