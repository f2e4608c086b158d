"""Certificates that tests sign themselves, and a door that speaks TLS before a server that does not."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
import threading
from pathlib import Path
from typing import NamedTuple, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_DAY = dt.timedelta(days=1)


class Certificate(NamedTuple):
    """The files of a certificate of `localhost`, which is its own authority, and of its key."""

    path: Path
    key: Path


def certificate(folder: Path, name: str = "server", days: int = 2) -> Certificate:
    """Write a certificate that is valid for so many days from now; it has expired where they are negative."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 30 * _DAY)
        .not_valid_after(now + days * _DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    found = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
    found.path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    kind = serialization.PrivateFormat.TraditionalOpenSSL
    found.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, plain))
    return found


class TlsFront:
    """A door to a server on loopback; `asked` says that the client asks for TLS first, as Postgres' do."""

    def __init__(self, to: int, shown: Certificate, *, asked: bool = False) -> None:
        self.encrypted = 0
        self.shown = shown
        self._to, self._asked = to, asked
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(*shown)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve)
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _serve(self) -> None:
        self._loop.run_until_complete(self._run())
        self._loop.close()

    async def _run(self) -> None:
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task] = set()
        at_once = None if self._asked else self._context
        async with await asyncio.start_server(self._client, sock=self._listening, ssl=at_once):
            self._ready.set()
            await self._stop.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self, reader, writer) -> None:
        self._tasks.add(asyncio.current_task())
        behind, ahead = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            if self._asked:
                await reader.readexactly(8)
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(self._context)
            self.encrypted += 1
            await asyncio.gather(self._pump(reader, ahead), self._pump(behind, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for one in (writer, ahead):
                one.close()

    @staticmethod
    async def _pump(reader, writer) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
