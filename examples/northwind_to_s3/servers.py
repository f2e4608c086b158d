"""The servers of this example, started on 127.0.0.1: a Postgres with Northwind in it, and an S3 store.

python examples/northwind_to_s3/servers.py    # runs until Ctrl-C; prints what to export
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import boto3
import pgserver
import psycopg2
from botocore.exceptions import BotoCoreError, ClientError

PROJECT = Path(__file__).resolve().parent
FOLDER = PROJECT / ".servers"
BUCKET = "northwind"
# They guard nothing: both servers are reached from this machine alone, and hold the sample alone.
_KEY, _SECRET = "northwind", "northwind-secret"
_SECONDS_TO_START = 60


@contextmanager
def running(folder: Path = FOLDER) -> Iterator[dict[str, str]]:
    """Run both servers on data in `folder`; give the variables by which the pipeline reaches them."""
    folder.mkdir(parents=True, exist_ok=True)
    with pgserver.get_server(folder / "postgres") as postgres, _object_store(folder / "s3") as endpoint:
        url = _database(postgres.get_uri())
        yield {
            "NORTHWIND_URL": url,
            "S3_ENDPOINT": endpoint,
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


def _database(uri: str) -> str:
    """The database `northwind`, filled when it is new."""
    with _connected(uri) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_database WHERE datname = 'northwind'")
        known = cursor.fetchone() == (1,)
        if not known:
            cursor.execute("CREATE DATABASE northwind")
    url = uri.replace("/postgres?", "/northwind?")
    if not known:
        with _connected(url) as connection, connection.cursor() as cursor:
            cursor.execute(_script())
    return url


def _script() -> str:
    """The script, less a setting that servers after Postgres 11 do not have."""
    text = (PROJECT / "data" / "northwind.sql").read_text(encoding="utf-8")
    return text.replace("SET default_with_oids = false;", "")


@contextmanager
def _connected(url: str) -> Iterator[psycopg2.extensions.connection]:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _object_store(folder: Path) -> Iterator[str]:
    folder.mkdir(exist_ok=True)
    ports = _free_ports(9)
    config = folder / "s3.json"
    credentials = [{"accessKey": _KEY, "secretKey": _SECRET}]
    config.write_text(
        json.dumps(
            {
                "identities": [
                    {
                        "name": "example",
                        "credentials": credentials,
                        "actions": ["Admin", "Read", "Write", "List"],
                    }
                ]
            }
        )
    )
    names = ("master", "volume", "filer", "s3")
    listens = [f"-{name}.port={port}" for name, port in zip(names, ports[:4], strict=True)]
    listens += [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[4:8], strict=True)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                Path(sys.executable).with_name("weed"), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                f"-dir={folder}", *listens, "-filer", "-s3", f"-s3.config={config}", "-s3.port.lance=0",
                "-s3.port.iceberg=0", "-volume.max=20", "-master.volumeSizeLimitMB=64",
            ],
            stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
    try:
        endpoint = f"http://127.0.0.1:{ports[3]}"
        _wait_for(process, endpoint, folder / "log")
        yield endpoint
    finally:
        process.terminate()
        process.wait()


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _wait_for(process: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    end = time.monotonic() + _SECONDS_TO_START
    while not _ready(endpoint):
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the S3 store did not start:\n{log.read_text(errors='replace')[-1000:]}")
        time.sleep(0.1)


def _ready(endpoint: str) -> bool:
    """Whether the bucket is there; the server answers before it can store."""
    with suppress(OSError, urllib.error.URLError, BotoCoreError, ClientError):
        urllib.request.urlopen(f"{endpoint}/healthz", timeout=1).close()
        client = boto3.client(
            "s3", endpoint_url=endpoint, aws_access_key_id=_KEY, aws_secret_access_key=_SECRET,
            region_name="us-east-1",
        )  # fmt: skip
        if not any(bucket["Name"] == BUCKET for bucket in client.list_buckets()["Buckets"]):
            client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key=".ready", Body=b"")
        client.delete_object(Bucket=BUCKET, Key=".ready")
        return True
    return False


def main() -> None:
    with running() as variables:
        for name, value in variables.items():
            print(f"export {name}={shlex.quote(value)}")
        print("# Both servers run until Ctrl-C.", flush=True)
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    main()
