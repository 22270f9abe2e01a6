"""The documented deployment for several machines: records in PostgreSQL, logs and tables in a bucket, nothing on this machine."""

import os
import subprocess
import sys
from pathlib import Path

from ml_assets.folders import folder_at
from ml_assets_tests.buckets import BUCKET, SECRET, running_s3
from ml_assets_tests.postgres import running_postgres

PROJECT = Path(__file__).parents[1]
DAY = "2013-01-02"


def test_the_documented_deployment_keeps_runs_logs_and_tables_where_it_says(tmp_path: Path) -> None:
    with running_s3() as server, running_postgres() as database:
        home = tmp_path / "home"
        home.mkdir()
        (home / "dagster.yaml").write_bytes((PROJECT / "docs" / "deployment" / "dagster.yaml").read_bytes())
        environment = {
            **os.environ,
            **server.settings,
            "DAGSTER_HOME": str(home),
            "ML_ASSETS_DAGSTER_DATABASE": database.url.replace("+psycopg", "+psycopg2"),
            "ML_ASSETS_LOGS_BUCKET": BUCKET,
            "ML_ASSETS_ROOT": server.address("models"),
            "ML_ASSETS_LOCAL": str(tmp_path / "local"),
            "PYTHONPATH": str(PROJECT),
        }
        command = [sys.executable, "-W", "ignore", "-m", "ml_assets", "materialize", "flight_delays", "--from", DAY, "--to", DAY]
        made = subprocess.run(
            [*command, "--select", "raw_flights"],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert made.returncode == 0, made.stdout + made.stderr

        told = subprocess.run(
            [
                sys.executable,
                "-W",
                "ignore",
                "-c",
                "import dagster as dg; i = dg.DagsterInstance.get(); "
                "print(i.run_launcher.supports_check_run_worker_health, i.get_runs_count(), "
                "sorted(i.get_materialized_partitions(dg.AssetKey(['flight_delays', 'raw_flights']))))",
            ],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert told.stdout.strip() == f"True 1 ['{DAY}']"
        bucket = folder_at(server.address(), Path(), server.settings)
        names = [found.name for found in bucket.find("**/*")]
        logs = [name for name in names if name.startswith("dagster/logs/")]
        assert {Path(name).suffix for name in logs} >= {".err", ".out"}
        assert SECRET not in "".join((bucket.get(name) or b"").decode() for name in logs)
        assert any(name.startswith("models/tables/flight_delays/raw_flights/") for name in names)
        left = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
        assert left == ["home/dagster.yaml"], "nothing is kept on this machine"
