"""Labels that come 1 to 20 days late give the same, to the last bit, in a column that fills up and in a table of their own."""

import re
from pathlib import Path

import pytest

from ml_assets.use_case import day_range
from ml_assets_tests.end_to_end.labels_of_a_shop import SAMPLE_DAYS, SETTING, START, live, opened, orders, settings_of
from ml_assets_tests.generated_cases import lenient

DAYS = day_range(START, "2023-02-08")
NIGHTS = [DAYS[:-3], *([day] for day in DAYS[-3:])]
"""The first model goes live on the sixth of February."""


def test_both_ways_give_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    rows = orders(SAMPLE_DAYS, 40)
    with opened(rows) as declared:
        case = lenient(declared)
        known = rows[rows["day"] <= DAYS[-1]]
        column, table = (live(case, known, NIGHTS, own_table=own_table, told=print) for own_table in (False, True))
    assert column == table
    assert column.scored >= set(DAYS[-3:]), "a model is in force, so that the last nights say something of scores"
    states = re.findall(r"state (\w+)", capsys.readouterr().out)
    assert len(states) >= 2
    assert states[: len(states) // 2] == states[len(states) // 2 :]


def test_a_table_of_labels_that_does_not_say_whose_they_are_is_refused(tmp_path: Path) -> None:
    """Features would know of no label before an event, and nothing would say so."""
    file = settings_of(tmp_path, DAYS[-1], own_table=True)
    events, truth = file.read_text().split("[ground_truth]")
    whose = 'customer_id = "customer_id", '
    with opened(orders(SAMPLE_DAYS, 20)) as case:
        truth_of = case.table("ground_truth").source
        for said in (whose, 'customer_id = "", '):
            file.write_text(events + "[ground_truth]" + truth.replace(whose, said))
            assert truth_of({SETTING: str(file)}).read([START]).problems[START].startswith("no file matches")
        file.write_text(events + "[ground_truth]" + truth.replace(whose, ""))
        with pytest.raises(ValueError, match=r'\[ground_truth\] columns: no customer_id; .*where there is none.* customer_id = ""'):
            truth_of({SETTING: str(file)})
