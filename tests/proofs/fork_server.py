"""Runs `sqlflow` and `dagster` commands in forked children that share one start of Python and Dagster.

One JSON document a line: `{"argv": […], "env": {…}, "log": "path"}` in, `{"pid": n}` and, when the
child has ended, `{"status": n}` out (negative for a signal). A child is a process like any other:
killed, it dies without a word.
"""

import json
import os
import sys


def serve() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(command)
        _answer({"pid": pid})
        _pid, status = os.waitpid(pid, 0)
        _answer({"status": os.waitstatus_to_exitcode(status)})


def _become(command: dict) -> None:
    os.environ.update(command["env"])
    log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.stdin.close()
    sys.argv = command["argv"]
    if sys.argv[0] == "dagster":
        from dagster._cli import main
    else:
        from sqlflow_dagster.cli import main

    sys.exit(main())


def _answer(document: dict) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # The slow part of a run's start. DuckDB is left to the child: importing it starts a thread, which a
    # fork does not carry over.
    import dagster
    import dagster._core.storage.sqlite_storage  # noqa: F401

    assert "duckdb" not in sys.modules
    serve()
