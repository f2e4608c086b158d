"""A token that expires is renewed once, whoever notices, and what the vendor gave is never half stored."""

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from sqlflow_dagster.connectors.http import Client, HttpOptions
from sqlflow_dagster.errors import NotAllowed, ProjectError
from sqlflow_dagster.resilience.clock import waits_off
from sqlflow_dagster.resilience.guard import Guard
from sqlflow_dagster.resilience.policy import DEFAULTS
from sqlflow_dagster.resilience.tokens import TokenFile
from tests.http_server import Server

READING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.resilience.test_tokens import reader
client = reader(sys.argv[1], Path(sys.argv[2]))
print("ready", flush=True); sys.stdin.readline()
print(client.get("items").json()["ok"], flush=True)
"""


class Vendor:
    """An OAuth server that takes each refresh token once, and an API beside it."""

    def __init__(self):
        self.server = Server()
        self.server.answers = [self.answer]
        self.access, self.refresh, self.renewals, self.lockouts = "access-1", "refresh-1", 0, 0

    @property
    def url(self):
        return self.server.url

    def answer(self, handler):
        renewing = handler.path.endswith("/token")
        status, document = self.token(json.loads(handler.body)) if renewing else self.items(handler)
        text = json.dumps(document).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    def token(self, asked):
        if asked["refresh_token"] != self.refresh:
            self.lockouts += 1
            return 401, {"error": "invalid_grant"}
        self.renewals += 1
        self.access, self.refresh = f"access-{self.renewals + 1}", f"refresh-{self.renewals + 1}"
        return 200, {"access_token": self.access, "refresh_token": self.refresh}

    def items(self, handler):
        ok = handler.headers["Authorization"] == f"Bearer {self.access}"
        return (200, {"ok": True}) if ok else (401, {"error": "expired"})


@pytest.fixture
def vendor():
    made = Vendor()
    yield made
    made.server.close()


def reader(url, folder):
    """A client as a connector with OAuth makes it."""
    tokens = TokenFile(folder, "shop")
    options = HttpOptions(allow_private_addresses=True)
    guard = Guard("far", DEFAULTS["api"])
    asking = Client(url, guard, options)
    used = ["access-0"]

    def credentials():
        stored = tokens.stored()
        used[0] = stored["access_token"] if stored else "access-0"
        return {"Authorization": f"Bearer {used[0]}"}

    def renew():
        def ask(before):
            first = {"refresh_token": "refresh-1"}
            document = {"refresh_token": (before or first)["refresh_token"]}
            return asking.request("POST", "token", document=document).json()

        tokens.renewed(SecretStr(used[0]), ask)

    return Client(url, guard, options, credentials=credentials, renew=renew)


def test_many_readers_renew_once(vendor, tmp_path):
    readers = [reader(vendor.url, tmp_path) for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda client: client.get("items").json()["ok"], readers))
    assert answers == [True] * 6
    assert (vendor.renewals, vendor.lockouts) == (1, 0)
    for client in readers:
        client.close()


def test_processes_renew_once(vendor, tmp_path):
    root = str(Path(__file__).parents[2])
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", READING, vendor.url, str(tmp_path), root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    assert [worker.communicate()[0] for worker in workers] == ["True\n"] * 3
    assert (vendor.renewals, vendor.lockouts) == (1, 0)


def test_a_token_that_expires_again_is_renewed_with_the_rotated_one(vendor, tmp_path):
    client = reader(vendor.url, tmp_path)
    client.get("items")
    vendor.access = "revoked"
    assert client.get("items").json() == {"ok": True}
    assert (vendor.renewals, vendor.lockouts) == (2, 0)
    client.close()


def test_a_vendor_that_is_away_leaves_the_stored_tokens(vendor, tmp_path):
    client = reader(vendor.url, tmp_path)
    client.get("items")
    before = TokenFile(tmp_path, "shop").stored()
    vendor.access, vendor.refresh = "revoked", "revoked"
    with waits_off(), pytest.raises(NotAllowed):
        client.get("items")
    assert TokenFile(tmp_path, "shop").stored() == before
    client.close()


def test_a_writer_killed_at_any_moment_leaves_whole_tokens(tmp_path):
    script = (
        "import sys; from pathlib import Path; from pydantic import SecretStr\n"
        "from sqlflow_dagster.resilience.tokens import TokenFile\n"
        "f = TokenFile(Path(sys.argv[1]), 'shop'); n = 0; print('ready', flush=True)\n"
        "while True:\n"
        "    n += 1; f.renewed(SecretStr(str(n - 1)), lambda _: {'access_token': str(n), 'pad': 'x' * 100_000})\n"
    )
    for pause in range(5):
        writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
        writer.stdout.readline()
        try:
            writer.wait(0.02 * (pause + 1))
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)
        writer.communicate()
        found = TokenFile(tmp_path, "shop").stored()
        assert found is None or len(found["pad"]) == 100_000
        for file in tmp_path.glob("*.json"):
            file.unlink()


def test_only_the_owner_may_read_them(tmp_path):
    file = TokenFile(tmp_path / "tokens", "shop")
    file.renewed(None, lambda _: {"access_token": "a"})
    assert file.path.stat().st_mode & 0o077 == 0
    assert file.path.parent.stat().st_mode & 0o077 == 0


def test_a_file_that_holds_no_tokens_is_named(tmp_path):
    file = TokenFile(tmp_path, "shop")
    file.path.write_text("[1]")
    with pytest.raises(ProjectError, match="holds no tokens"):
        file.stored()
