import io
import os
import sys

import pytest

UGLY = "load  a   from s;\nCREATE TABLE t AS SELECT   1;\n"


def test_files_are_laid_out_once_and_then_stay(sqlflow, bench):
    bench.pipeline(UGLY)
    assert sqlflow("fmt", "--check", "--project", bench.root).status == 1
    assert (bench.root / "pipelines/p.sf").read_text() == UGLY
    assert sqlflow("fmt", "--project", bench.root).status == 0
    laid_out = (bench.root / "pipelines/p.sf").read_text()
    assert "LOAD a FROM s;" in laid_out
    assert "SELECT   1" in laid_out
    assert sqlflow("fmt", "--check", "--project", bench.root).status == 0


def test_the_bytes_of_a_sql_body_are_kept(sqlflow, bench):
    body = "SELECT 'a\r\nb' AS t,   -- why\r\n  1 AS n"
    bench.pipeline(f"load a from s;\r\nCREATE TABLE t AS {body};\r\n")
    assert sqlflow("fmt", "--project", bench.root).status == 0
    assert body.encode() in (bench.root / "pipelines/p.sf").read_bytes()


def test_a_file_that_does_not_parse_is_named_and_the_others_are_laid_out(sqlflow, bench):
    bench.pipeline("nonsense;\n", "a")
    bench.pipeline(UGLY, "b")
    result = sqlflow("fmt", "--project", bench.root)
    assert result.status == 1
    assert "a.sf:1:1" in result.err
    assert "LOAD a FROM s;" in (bench.root / "pipelines/b.sf").read_text()


@pytest.mark.parametrize("content", [b"\xff\xfe;", None], ids=["not-utf-8", "no-such-file"])
def test_a_file_that_cannot_be_read_is_named(sqlflow, tmp_path, content):
    path = tmp_path / "x.sf"
    if content:
        path.write_bytes(content)
    result = sqlflow("fmt", path)
    assert result.status == 1
    assert "x.sf" in result.err


def test_stdin_is_laid_out_to_stdout(sqlflow, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(UGLY.encode())))
    result = sqlflow("fmt", "-")
    assert result.status == 0
    assert result.out.startswith("LOAD a FROM s;")


def test_a_file_that_cannot_be_written_is_not_said_to_be_changed(sqlflow, bench):
    bench.pipeline("CREATE   TABLE a AS SELECT 1 AS x;")
    # Where the new text would be written first.
    bench.write(f"pipelines/.p.sf.{os.getpid()}/in_the_way", "")
    result = sqlflow("fmt", "--project", bench.root)
    assert result.status == 1
    assert result.err.splitlines() == [f"{bench.root}/pipelines/p.sf: Is a directory"]
