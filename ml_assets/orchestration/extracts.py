"""Jobs elsewhere that write a table's files before they are read: what they wrote of each day, as an asset.

Belongs here: what is kept of what a job reports. Does not: starting it and hearing it (`glue`), what it does (`jobs.glue_extract`), or
reading what it wrote (`sources`).
"""

from collections.abc import Iterator

import dagster as dg
import pandas as pd

from ml_assets.orchestration.daily import Days, stage
from ml_assets.orchestration.publish import Made
from ml_assets.stages.quality import audit
from ml_assets.use_case import Column, DType, Extract, UseCase

COLUMNS = (
    Column(name="file", dtype=DType.STRING, description="the object that the job wrote"),
    Column(name="rows", dtype=DType.INT64, description="the job says that it wrote", minimum=0),
    Column(name="version", dtype=DType.STRING, description="the object's ETag"),
)


class ExtractError(RuntimeError):
    """A job did not do what it was asked for: why, in its own words where it has any."""


def extract_asset(case: UseCase, extract: Extract) -> dg.AssetsDefinition:
    """What a job wrote of each day. Days that it reported before it failed are kept, so that it need not begin again."""
    check = "the_job_reports_its_days"

    def make(days: Days) -> Iterator[Made]:
        from ml_assets.orchestration.glue import run_job  # dagster-aws takes a second to import, in every process of Dagster

        reported, run, trouble = run_job(days, extract)
        rows = pd.DataFrame([reported[day] for day in days.ready if day in reported], columns=["day", "file", "rows", "version"])
        rows = rows.astype({"day": "str", "file": "str", "rows": "int64", "version": "str"})
        done = {day: days.inputs[day] for day in days.ready if day in reported}
        days.log(f"{extract.job} wrote {int(rows['rows'].sum()):,} rows of {len(done)} of {len(days.ready)} days")
        verdicts = audit(rows, days=list(done), columns=COLUMNS, key=["file"])
        shown = {day: {"rows": reported[day]["rows"], "file": reported[day]["file"], **run} for day in done}
        yield Made(table=extract.name, rows=rows, columns=COLUMNS, inputs=done, checks={check: verdicts}, shown=shown)
        if missing := [day for day in days.ready if day not in done]:
            trouble = trouble or f"it said nothing about {', '.join(missing)}"
        if trouble:
            raise ExtractError(f"Glue job {extract.job}: {trouble}")

    return stage(
        case,
        make,
        {extract.name: {check: "The job said which file it wrote and how many rows are in it."}},
        recipe=extract.name,
        kinds={"glue", "s3"},
        schemas={extract.name: COLUMNS},
        group="raw",
    )
