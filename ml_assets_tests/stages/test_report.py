"""The report as a reader and a browser get it."""

import struct
from base64 import b64decode
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from math import nan
from typing import Any

import pytest
from PIL import Image
from scipy.stats import spearmanr

from ml_assets.stages.contributions import Why
from ml_assets.stages.evaluate import Contribution, Curves, Decision, Example, Performance, Reason, Report, SliceResult, Trial
from ml_assets.stages.pictures import draw, rank_correlations, roc, search_history
from ml_assets.stages.report import CAPTIONS, headline, metric_rows, render, summary_markdown, trials_markdown

HOSTILE = "<script>alert(1)</script> | \"quoted\" & 'so on'"
PICTURES = ["precision_recall", "roc", "calibration", "confusion_matrix", "importance"]
OUTSIDE = ("http:", "https:", "//", "ftp:")


def performance(version: str, *, better: float) -> Performance:
    metrics = {
        "accuracy": 0.9 + better,
        "precision": 0.4 + better,
        "recall": 0.3 + better,
        "f1": 0.35 + better,
        "roc_auc": 0.8 + better,
        "average_precision": 0.25 + better,
        "log_loss": 0.3 - better,
        "brier": 0.08 - better,
        "expected_calibration_error": 0.02 - better / 10,
        "alert_share": 0.05,
    }
    curves = Curves(
        precision_recall=[[0.0, 1.0], [0.3 + better, 0.4 + better], [1.0, 0.1]],
        roc=[[0.0, 0.0], [0.1, 0.5 + better], [1.0, 1.0]],
        calibration=[[0.02, 0.01 + better, 800], [0.3, 0.28 + better, 200]],
    )
    return Performance(
        version=version,
        family="lightgbm",
        threshold=0.2345,
        metrics=metrics,
        confusion={"tp": 30, "fp": 45, "fn": 70, "tn": 1855},
        curves=curves,
    )


def decision(*, promoted: bool, champion: str | None = "champion-1") -> Decision:
    reasons = (
        Reason(name="average_precision floor", passed=True, observed="0.2817", wanted="at least 0.2"),
        Reason(name="chance of being worse", passed=promoted, observed="0.0123" if promoted else "0.4567", wanted="under 0.05"),
    )
    return Decision(
        promoted=promoted, reasons=reasons, champion_before=champion, champion_after="candidate-2" if promoted else champion
    )


@pytest.fixture
def report() -> Report:
    return Report(
        case="card_fraud",
        week="2020-06-01",
        as_of="2020-06-01",
        holdout_first="2020-05-04",
        holdout_last="2020-05-31",
        holdout_rows=2000,
        positives=100,
        candidate=performance("candidate-2", better=0.0317),
        champion=performance("champion-1", better=0.02),
        baseline=performance("baseline-2", better=0.01),
        climatology=performance("climatology-2", better=0.0),
        comparison={
            "mean_difference": 0.0119,
            "chance_worse_than_margin": 0.0123,
            "interval_low": -0.0021,
            "interval_high": 0.0254,
            "resamples": 1000,
        },
        slices=(
            SliceResult(
                column="merchant_category", value=HOSTILE, rows=1234, candidate=0.31, champion=0.29, difference=0.02, passed=True
            ),
        ),
        importance=tuple((f"feature_{i}_$x$_with_a_name_longer_than_any_label_can_be", (20 - i) / 210) for i in range(20)),
        decision=decision(promoted=True),
    )


class Page(HTMLParser):
    """What a browser would fetch, run and show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.bold: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "action", "data", "poster"}]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "strong" and data.strip():
            self.bold.append(data.strip())
            self.tags.append("")
        self.texts.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(text for text in self.texts if text)

    @property
    def pictures(self) -> list[bytes]:
        start = "data:image/png;base64,"
        return [b64decode(address.removeprefix(start), validate=True) for address in self.addresses if address.startswith(start)]


def page(report: Report, pictures: Mapping[str, bytes] | None = None) -> Page:
    return Page(render(report, pictures or {}, title="Card fraud", notes={"Training rows": "1,204,332"}))


def refused(report: Report) -> Report:
    return replace(report, decision=decision(promoted=False))


def first(report: Report) -> Report:
    return replace(report, champion=None, comparison=None, slices=(), decision=decision(promoted=True, champion=None))


def test_the_page_stands_alone(report: Report) -> None:
    text = render(report, draw(report), title="Card fraud")
    assert not [address for address in Page(text).addresses if address.startswith(OUTSIDE)]
    assert all(address.startswith("data:") for address in Page(text).addresses)
    assert "url(" not in text
    assert "@import" not in text
    assert not {"script", "iframe", "object", "embed"} & set(Page(text).tags)


def test_all_pictures_are_embedded_and_legibly_wide(report: Report) -> None:
    found = page(report, draw(report)).pictures
    assert len(found) == len(PICTURES)
    for picture in found:
        image = Image.open(BytesIO(picture))
        image.load()
        assert image.format == "PNG"
        assert image.size == (640, 420)


def test_pictures_are_small_and_carry_no_software_or_date(report: Report) -> None:
    pictures = draw(report)
    assert list(pictures) == PICTURES
    for picture in pictures.values():
        assert len(picture) < 40_000
        assert not {b"tEXt", b"iTXt", b"tIME"} & set(chunks(picture))


def chunks(picture: bytes) -> list[bytes]:
    """The names of a PNG's chunks: length, name, data, checksum, one after the other behind eight bytes of signature."""
    names, place = [], 8
    while place < len(picture):
        length, name = struct.unpack(">I4s", picture[place : place + 8])
        names.append(name)
        place += length + 12
    return names


def test_drawing_twice_and_in_threads_gives_the_same_bytes(report: Report) -> None:
    alone = draw(report)
    with ThreadPoolExecutor(2) as pool:
        assert all(pictures == alone for pictures in pool.map(draw, [report] * 2))


def test_a_different_report_gives_different_pictures(report: Report) -> None:
    other = replace(report, candidate=replace(report.candidate, metrics={**report.candidate.metrics, "roc_auc": 0.6}))
    assert roc(other) != roc(report)


def test_the_numbers_of_the_report_appear(report: Report) -> None:
    text = page(report).text
    for shown in ("0.2817", "0.0123", "at least 0.2", "under 0.05"):  # reasons
        assert shown in text
    for shown in ("0.9317", "0.8200", "0.2600", "0.3000", "0.0500"):  # metrics of the four models
        assert shown in text
    for shown in ("0.0119 higher", "1,000 resamples", "95 % interval -0.0021 to +0.0254", "1.2 %"):  # bootstrap
        assert shown in text
    for shown in ("2020-05-04 to 2020-05-31", "2,000", "1,234", "+0.0200", "1,204,332", "climatology-2"):  # facts, slice, note
        assert shown in text


def test_the_best_of_each_metric_is_bold(report: Report) -> None:
    assert page(report).bold == ["0.9317", "0.4317", "0.3317", "0.3817", "0.8317", "0.2817", "0.2683", "0.0483", "0.0168"]
    rows = {row.name: row for row in metric_rows(report)}
    assert rows["Log loss"].best == (True, False, False, False)
    assert not any(rows["Share of events flagged"].best)


def test_models_that_tie_are_all_bold(report: Report) -> None:
    tied = replace(report, champion=replace(report.candidate, version="champion-1"))
    assert metric_rows(tied)[0].best == (True, True, False, False)


def test_headlines_say_what_happened(report: Report) -> None:
    assert headline(report) == "Promoted: candidate candidate-2 replaces champion champion-1."
    assert headline(refused(report)) == (
        "Kept the champion: champion-1 stays, because candidate candidate-2 failed on "
        "chance of being worse (0.4567, wanted under 0.05)."
    )
    assert headline(first(report)) == "Promoted: candidate candidate-2 becomes the first champion."
    never = replace(first(report), decision=decision(promoted=False, champion=None))
    assert headline(never).startswith("Not promoted: no model is live yet")


def test_the_page_marks_failures_in_words(report: Report) -> None:
    assert headline(refused(report)) in page(refused(report)).text
    assert "✗ fail" in page(refused(report)).text
    assert "✗ fail" not in page(report).text


def test_a_hostile_slice_value_is_text(report: Report) -> None:
    text = render(report, {}, title=HOSTILE, notes={HOSTILE: HOSTILE})
    assert "<script" not in text
    assert "script" not in Page(text).tags
    assert Page(text).text.count(HOSTILE) == 5  # title, heading, slice, name and value of the note


def test_the_first_report_has_no_champion(report: Report) -> None:
    shown = page(first(report), draw(first(report)))
    assert len(shown.pictures) == len(PICTURES)
    assert "There is no champion to compare with" in shown.text
    assert all(len(row.cells) == 3 for row in metric_rows(first(report)))


def test_undefined_figures_are_shown_as_such(report: Report) -> None:
    """A hold-out without positives has no curves, and most of its metrics are nan."""
    empty = replace(
        report.candidate,
        metrics=dict.fromkeys(report.candidate.metrics, nan),
        confusion={"tp": 0, "fp": 0, "fn": 0, "tn": 0},
        curves=Curves(precision_recall=[], roc=[], calibration=[]),
    )
    bare = replace(
        report, candidate=empty, champion=empty, baseline=empty, climatology=empty, positives=0, holdout_rows=0, importance=()
    )
    assert len(draw(bare)) == len(PICTURES)
    assert "n/a" in page(bare).text
    assert not any(any(row.best) for row in metric_rows(bare))


def test_the_markdown_is_short_and_whole(report: Report) -> None:
    text = summary_markdown(refused(report))
    assert len(text) < 4000
    assert "Kept the champion: champion-1 stays" in text
    assert "| ✗ fail | chance of being worse | 0.4567 | under 0.05 |" in text
    assert "| Log loss | **0.2683** | 0.2800 | 0.2900 | 0.3000 |" in text


def test_the_markdown_escapes_what_would_break_a_table(report: Report) -> None:
    reason = Reason(name="a|b\n<i>c*", passed=False, observed="1", wanted="`x`")
    text = summary_markdown(replace(report, decision=replace(report.decision, promoted=False, reasons=(reason,))))
    assert r"| ✗ fail | a\|b␊\<i\>c\* | 1 | \`x\` |" in text


def searched(report: Report) -> Report:
    """With contributions, an example and a search of seven trials."""
    return replace(
        report,
        contributions=(
            Contribution(feature="amount_$x$", mean_absolute=0.75, mean_positives=None, mean_negatives=-0.1),
            Contribution(feature="hour", mean_absolute=0.25, mean_positives=0.2, mean_negatives=0.0),
        ),
        examples=(
            Example(
                event=HOSTILE,
                day="2020-05-06",
                score=0.9812,
                label=0,
                reasons=(Why(feature="amount", value="1,234,567", contribution=-1.2345),),
            ),
        ),
        trials=TRIALS,
    )


def trial(number: int, value: float, **changes: Any) -> Trial:
    leaves: dict[str, float | int | str] = {
        "family": "lightgbm",
        "num_leaves": 4 + number,
        "learning_rate": 0.1,
        "wave": number % 2,
    }
    return Trial(
        **{
            "number": number,
            "state": "complete",
            "value": value,
            "family": "lightgbm",
            "parameters": leaves,
            "folds": (value - 0.1, value + 0.1),
            "trees": 50,
            **changes,
        }
    )


TRIALS = (
    *(trial(number, 0.5 + 0.01 * number**2) for number in range(4)),
    trial(4, 0.7, state="pruned", folds=(0.7,)),
    trial(5, 0.4, family="logistic", parameters={"family": "logistic", "inverse_penalty": 0.123456}, trees=None),
    trial(6, 0.55),
)


def test_intervals_stand_beside_the_figures(report: Report) -> None:
    ranges = {"average_precision": [0.2512, 0.3123], "brier": [0.0471, 0.0492]}
    known = replace(report, candidate=replace(report.candidate, intervals=ranges))

    shown, text = page(known), summary_markdown(known)

    assert "0.2817 (0.25 – 0.31) 0.2700" in shown.text
    assert "0.0483 (0.0471 – 0.0492)" in shown.text
    assert shown.bold == page(report).bold
    assert "| Average precision | **0.2817** (0.25 – 0.31) | 0.2700 | 0.2600 | 0.2500 |" in text
    assert len(text) < 4000
    assert "(" not in metric_rows(known)[0].intervals


def test_contributions_and_trials_have_pictures_where_there_are_any(report: Report) -> None:
    pictures = draw(searched(report))

    assert list(pictures) == [*PICTURES, "contributions", "search_history", "search_importance"]
    assert all(Image.open(BytesIO(picture)).size == (640, 420) and len(picture) < 40_000 for picture in pictures.values())
    assert set(pictures) <= set(CAPTIONS)
    assert "Spearman" in CAPTIONS["search_importance"]
    assert pictures == draw(searched(report))


def test_few_trials_have_a_history_and_no_importance(report: Report) -> None:
    few = replace(report, trials=(*TRIALS[:3], *TRIALS[4:6]))
    pruned = replace(report, trials=TRIALS[4:5])

    assert list(draw(few)) == list(draw(pruned)) == [*PICTURES, "search_history"]
    assert search_history(few) != search_history(pruned)


def test_a_pruned_trial_is_drawn_otherwise(report: Report) -> None:
    as_complete = replace(report, trials=tuple(replace(each, state="complete") for each in TRIALS))

    assert search_history(replace(report, trials=TRIALS)) != search_history(as_complete)


def test_importance_of_a_hyperparameter_is_its_rank_correlation() -> None:
    found = dict(rank_correlations(TRIALS))

    ranks = {"num_leaves": [0, 1, 2, 3, 6], "wave": [0, 1, 0, 1, 0]}
    values = [0.5, 0.51, 0.54, 0.59, 0.55]
    assert found == {name: pytest.approx(abs(spearmanr(tried, values).statistic)) for name, tried in ranks.items()}
    assert next(iter(found)) == "num_leaves"
    assert rank_correlations([replace(each, value=0.5) for each in TRIALS]) == []


def test_the_page_shows_examples_and_trials(report: Report) -> None:
    text = page(searched(report)).text

    assert "2020-05-06, score 0.9812, negative: a false alert" in text
    assert "amount 1,234,567 -1.2345" in text
    assert "3 lightgbm 0.5900 0.490 0.690 50 complete num_leaves 7, learning_rate 0.1, wave 1" in text
    assert text.index("3 lightgbm") < text.index("6 lightgbm") < text.index("5 logistic") < text.index("4 lightgbm")
    assert "<script" not in render(searched(report), {}, title="x")
    assert "Search" not in page(report).text


def test_trials_are_a_table_in_markdown() -> None:
    lines = trials_markdown(TRIALS).splitlines()

    assert len(lines) == 2 + len(TRIALS)
    assert lines[2] == "| 3 lightgbm | 0.5900 | 0.490 0.690 | 50 | complete | num_leaves 7, learning_rate 0.1, wave 1 |"
    assert lines[-2] == "| 5 logistic | 0.4000 | 0.300 0.500 |  | complete | inverse_penalty 0.1235 |"
    assert lines[-1].startswith("| 4 lightgbm | 0.7000 | 0.700 | 50 | pruned |")
    assert trials_markdown([]).startswith("No search")


def test_a_slice_for_information_neither_passes_nor_fails(report: Report) -> None:
    shown = page(replace(report, slices=(replace(report.slices[0], required=False),))).text

    assert "+0.0200 for information" in shown
