"""A year of a case that `ml-assets new` makes, whose labels come 1 to 20 days late: in a column that fills up, and in a table of their own.

    python benchmarks/year_of_labels.py [--days 365] [--orders 60] [--nights 365] [--step 7]

Each simulated day brings a file of its orders, without their labels, and those orders again whose label came that day (or, in the other
world, a file of labels). Every night everything up to it is made by the very command, `bring_up_to_date`, as a user would.

It stops with an error unless every day was scored on its day, no label counted before it arrived, and both worlds have the same tables,
decisions and models to the last bit. A line a month tells the state of a world so far as a hash.
"""

import argparse
import json
import logging
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from ml_assets.use_case import day_range, shift
from ml_assets_tests.end_to_end.labels_of_a_shop import SAME, SAMPLE_DAYS, START, State, live, opened, orders

WORLDS = {"a column that fills up": False, "a table of its own": True}


def lived(options: argparse.Namespace, name: str, *, own_table: bool) -> State:
    """What is there after the year."""
    logging.disable(logging.WARNING)
    rows = orders(max(options.days, SAMPLE_DAYS), options.orders)
    days = day_range(START, shift(START, options.days - 1))
    nightly, later = days[: options.nights], days[options.nights :]
    nights = [[day] for day in nightly] + [later[first : first + options.step] for first in range(0, len(later), options.step)]
    with opened(rows) as case:
        told = partial(print, f"{name},", flush=True)
        return live(case, rows[rows["day"] <= days[-1]], nights, own_table=own_table, told=told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--orders", type=int, default=60, help="a day")
    parser.add_argument("--nights", type=int, default=365, help="so many first days are made each in its night")
    parser.add_argument("--step", type=int, default=7, help="so many days at once are made after them")
    options = parser.parse_args()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        running = [processes.submit(lived, options, name, own_table=own_table) for name, own_table in WORLDS.items()]
        one, other = (each.result() for each in running)
    for name in SAME:
        assert one.contents[name] == other.contents[name], f"the worlds differ in {name}"
    assert one.decisions == other.decisions
    kinds = json.dumps(Counter(kind for _, kind, *_ in one.decisions))
    print(f"the same to the last bit: {', '.join(SAME)} and {len(one.decisions)} decisions ({kinds})")


if __name__ == "__main__":
    main()
