from sqlflow_dagster.settings import load_settings


def test_a_new_project_runs_at_once_and_reads_only_what_is_new_afterwards(sqlflow, tmp_path):
    folder = tmp_path / "my shop"
    made = sqlflow("init", folder)
    assert made.status == 0
    assert f"--project '{folder}'" in made.err
    assert sqlflow("validate", "--project", folder).status == 0
    assert sqlflow("fmt", "--check", "--project", folder).status == 0
    first = sqlflow("run", "orders", "--project", folder, "--format", "json")
    assert first.status == 0, first.err
    assert _read(first) == 3
    assert (folder / "output/daily_sales.csv").read_text().splitlines()[1] == "2026-01-01,2,24.90"

    with (folder / "data/orders.csv").open("a") as file:
        file.write("4,2026-01-03 08:00:00,cleo,7.00\n")
    second = sqlflow("run", "orders", "--project", folder, "--format", "json")
    assert second.status == 0, second.err
    # The boundary row is read again, and merged.
    assert _read(second) == 2
    assert (folder / "output/daily_sales.csv").read_text().splitlines()[-1] == "2026-01-03,1,7.00"


def _read(result):
    return next(asset["rows"] for asset in result.json["assets"] if asset["asset"] == "orders/orders")


def test_a_new_project_has_its_name_and_keeps_its_state_out_of_git(sqlflow, tmp_path):
    folder = tmp_path / "it's: new"
    assert sqlflow("init", folder).status == 0
    assert load_settings(folder).project == "it's: new"
    assert "*.duckdb" in (folder / ".gitignore").read_text()


def test_init_never_writes_into_a_folder_that_holds_something(sqlflow, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    result = sqlflow("init", tmp_path)
    assert result.status == 1
    assert str(tmp_path) in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
