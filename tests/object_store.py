"""A real S3-speaking server on 127.0.0.1, and buckets of it for single tests."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

KEY, SECRET = "TESTKEY", "CANARY-s3-7d1e"
# Who may do what in a bucket `limited`: SeaweedFS's own words.
_WHO = {
    KEY: (SECRET, ["Admin", "Read", "Write", "List", "Tagging"]),
    "READER": ("CANARY-reader", ["Read:limited", "List:limited"]),
    "LISTER": ("CANARY-lister", ["List:limited"]),
    "BLIND": ("CANARY-blind", ["Read:limited"]),
    "BELOW": ("CANARY-below", ["Read:limited/below/*", "List:limited"]),
}
_SECONDS_TO_START = 60


@dataclass
class ObjectStore:
    """The server; `requests()` are the counts of its own metrics."""

    port: int
    metrics: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @cached_property
    def client(self) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )

    def requests(self) -> Counter[str]:
        """Requests so far by kind (`GET`, `LIST`, `PUT` …), whatever their answers."""
        before: Counter[str] | None = None
        # A request is counted a moment after it is answered.
        while before != (found := self._counted()):
            before = found
        return found

    def _counted(self) -> Counter[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics") as answer:
            text = answer.read().decode()
        found: Counter[str] = Counter()
        for line in text.splitlines():
            if line.startswith("SeaweedFS_s3_request_total{"):
                kind = line.split('type="')[1].split('"')[0]
                found[kind] += int(float(line.rsplit(" ", 1)[1]))
        return found


@dataclass
class Bucket:
    """A bucket of its own for one test."""

    store: ObjectStore
    name: str

    def __post_init__(self) -> None:
        self.client = self.store.client

    @property
    def params(self) -> dict[str, str]:
        """What a SOURCE needs to reach it."""
        return {
            "bucket": self.name,
            "endpoint_url": self.store.url,
            "access_key_id": KEY,
            "secret_access_key": SECRET,
            "region": "us-east-1",
        }

    def put(self, key: str, body: bytes | str | Path, **more: str) -> None:
        data = (
            body.read_bytes() if isinstance(body, Path) else body.encode() if isinstance(body, str) else body
        )
        self.client.put_object(Bucket=self.name, Key=key, Body=data, **more)

    def get(self, key: str) -> bytes:
        found: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return found

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def delete(self, *keys: str) -> None:
        for key in keys:
            self.client.delete_object(Bucket=self.name, Key=key)

    def empty(self) -> None:
        self.delete(*self.keys())


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has; the server takes gRPC ports of its own only where it is told none."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _program() -> Path:
    return Path(sys.executable).with_name("weed")


def start(folder: Path) -> tuple[subprocess.Popen[bytes], ObjectStore]:
    """Start a server whose data lie in `folder`, and wait until it answers."""
    names = ["master", "volume", "filer", "s3"]
    ports = dict(zip([*names, *(f"{name}.grpc" for name in names), "metrics"], _free_ports(9), strict=True))
    identities = [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
        for key, (secret, actions) in _WHO.items()
    ]
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": identities}))
    told = [
        f"-{name.partition('.')[0]}.port{name[len(name.partition('.')[0]) :]}={ports[name]}"
        for name in ports
        if name != "metrics"
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                _program(), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", *told,
                "-filer", "-s3", "-s3.port.lance=0", "-s3.port.iceberg=0", f"-s3.config={config}",
                f"-metricsPort={ports['metrics']}", "-volume.max=200", "-master.volumeSizeLimitMB=64",
                "-master.electionTimeout=1s", "-master.heartbeatInterval=200ms",
            ],
            stdout=log, stderr=log, cwd=folder, env={**os.environ, "WEED_S3_SSE_KEK": "0f" * 32},
        )  # fmt: skip
    store = ObjectStore(ports["s3"], ports["metrics"])
    end = time.monotonic() + _SECONDS_TO_START
    while not _answers(store):
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise RuntimeError((folder / "log").read_text(errors="replace")[-2000:])
        time.sleep(0.05)
    return process, store


def _answers(store: ObjectStore) -> bool:
    """Whether the server stores: it answers before its volumes can be written to."""
    with suppress(OSError, urllib.error.URLError):
        urllib.request.urlopen(f"{store.url}/healthz", timeout=1).close()
        return _stores(store.client)
    return False


def _stores(client: Any) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    with suppress(BotoCoreError, ClientError):
        if not client.list_buckets()["Buckets"]:
            client.create_bucket(Bucket="limited")
        client.put_object(Bucket="limited", Key="ready", Body=b"yes")
        return True
    return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server that `start` made, at once: nobody needs its data."""
    process.kill()
    process.wait()


@pytest.fixture(scope="session")
def object_store():
    folder = Path(tempfile.mkdtemp(prefix="sqlflow-s3-"))
    process, store = start(folder)
    yield store
    stop(process)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def bucket(object_store, request):
    name = f"t{abs(hash(request.node.nodeid)) % 10**12}"
    made = Bucket(object_store, name)
    made.client.create_bucket(Bucket=name)
    yield made
    made.empty()
    with suppress(made.client.exceptions.ClientError):
        made.client.delete_bucket(Bucket=name)
