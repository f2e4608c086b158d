"""Clients of a server that insert while a test reads."""

from __future__ import annotations

import contextlib
import threading


@contextlib.contextmanager
def inserting(connect, statement, count=2):
    """Insert by `statement` from `count` connections until the block ends; yields what tells how often it was done."""
    stop, done, failed = threading.Event(), [], []

    def insert():
        connection = connect()
        try:
            with connection.cursor() as cursor:
                while not stop.is_set():
                    cursor.execute(statement)
                    done.append(1)
        except Exception as error:  # noqa: BLE001 - raised where the test can see it
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=insert) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: len(done)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed, failed
