"""Pages of an API on loopback, read under all rules of resilience and under none."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from sqlflow_dagster.connectors.http import Client, HttpOptions
from sqlflow_dagster.resilience.account import Account
from sqlflow_dagster.resilience.guard import Guard
from sqlflow_dagster.resilience.policy import DEFAULTS, policy

# In a process of its own, so that its work is not counted as ours. It waits as long as a near API does.
_SERVER = """
import json, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
page = json.dumps({"rows": [{"id": n, "name": "x" * 80} for n in range(100)]}).encode()
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        time.sleep(0.005)
        head = f"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: {len(page)}\\r\\n\\r\\n"
        self.wfile.write(head.encode() + page)
server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds for the same pages: CPU of this process and wall, without rules and with all of them."""

    bare_cpu: float
    bare_wall: float
    ruled_cpu: float
    ruled_wall: float


def cost(pages: int, rounds: int) -> Cost:
    """Read `pages` pages in turn without and with rules, `rounds` times, and return the medians."""
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True) as server:
        try:
            port = int(server.stdout.readline()) if server.stdout else 0
            with tempfile.TemporaryDirectory() as folder:
                rules = policy(DEFAULTS["api"], rate_limit=1e9)
                bare = Guard("bare", policy(DEFAULTS["api"], max_retries=0))
                ruled = Guard("ruled", rules, Account(Path(folder), "ruled", rules))
                runs = [(_read(port, bare, pages), _read(port, ruled, pages)) for _ in range(rounds)]
        finally:
            server.kill()
    medians = [statistics.median(run[who][what] for run in runs) for who in (0, 1) for what in (0, 1)]
    return Cost(*medians)


def _read(port: int, guard: Guard, pages: int) -> tuple[float, float]:
    client = Client(f"http://127.0.0.1:{port}", guard, HttpOptions(allow_private_addresses=True))
    client.get("first").json()  # the connection is made before the clock runs
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(pages):
        client.get("items").json()
    spent = time.process_time() - cpu, time.perf_counter() - wall
    client.close()
    return spent
