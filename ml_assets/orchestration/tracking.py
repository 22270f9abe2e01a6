"""A mirror of models and decisions in MLflow, where the setting `MLFLOW_TRACKING_URI` names a tracking server.

Belongs here: what a run, a registered version and an alias say, and how a server is brought up to date with the store. Does not: what is
decided. The store is the record; whatever is missing on a server is made up for from there, so that a server may be down or new.

    experiment CASE, a run for each version   parameters, figures, pictures, report.html, the decision as tags, package/, model/
    registered model CASE                     a version for each run; `champion` is what is in force, `previous` what was before
"""

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from ml_assets.orchestration.store import Store
from ml_assets.settings import settings
from ml_assets.stages import package
from ml_assets.stages.model import Model
from ml_assets.stages.trees import Trees
from ml_assets.storage.decisions import MANUAL, Decision, Period
from ml_assets.storage.models import MANIFEST, ModelStore
from ml_assets.use_case import UseCase

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

URI = "MLFLOW_TRACKING_URI"
CHAMPION, PREVIOUS = "champion", "previous"
VERSION, PACKAGE, DECISION = "ml_assets.version", "ml_assets.package", "ml_assets.decision_number"
"""Tags of a run. The last two are set when the package, and when the decision, is there completely."""
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""Where nothing else is set: by itself MLflow reports usage, prints, and asks a server that went away seven times in four minutes."""
TAG_LENGTH = 5000
_ANSWER_SECONDS = 10.0
_PAGE = 1000


class TrackingError(ValueError):
    """MLflow is not installed, or the server does not answer; the message says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mirrored:
    """What a server was told just now: versions whose package, and whose decision, were not there, and aliases that moved."""

    logged: tuple[str, ...]
    judged: tuple[str, ...]
    moved: Mapping[str, str | None]
    """The version that an alias is of now; None where nothing is."""


@dataclass(kw_only=True, slots=True)
class Mirror:
    """The server beside a run. It is told as soon as something is made; once it failed it is left alone until the next run."""

    case: UseCase
    store: Store
    uri: str | None
    """None where no server is named: then nothing is done, and MLflow is not even imported."""
    warn: Callable[[str], object]
    failed: bool = field(default=False, init=False)

    def follow(self) -> None:
        """Brings the server up to date. What goes wrong is a warning: the store has everything."""
        if self.uri is None or self.failed:
            return
        try:
            bring_up_to_date(self.case, self.store, self.uri)
        except Exception as error:  # a mirror must not fail the run that it shows, whatever is wrong with it
            self.failed = True
            self.warn(
                f"MLflow was not told: {_in_words(error, self.uri)}. Nothing is lost: the next run of a weekly asset or "
                f"`ml-assets models {self.case.name} track` makes up for it"
            )


def mirror(case: UseCase, store: Store, *, warn: Callable[[str], object]) -> Mirror:
    """The mirror of a case, as the settings say.

    Raises:
        TrackingError: a server is named and MLflow is not installed.
    """
    return Mirror(case=case, store=store, uri=tracking_uri(settings()), warn=warn)


def tracking_uri(given: Mapping[str, str]) -> str | None:
    """The server that the settings name; None where they name none. Nothing of MLflow is imported for that.

    Raises:
        TrackingError: MLflow is not installed.
    """
    uri = given.get(URI, "").strip()
    if uri and find_spec("mlflow") is None:
        raise TrackingError(f"{URI} is set, and MLflow is not installed: pip install 'ml-assets[mlflow]', or unset it")
    return uri or None


def track(case: UseCase, store: Store) -> Mirrored:
    """Tells the server everything in the store that it does not have.

    Raises:
        TrackingError: no server is named, MLflow is not installed, or the server does not do what it is asked.
    """
    uri = tracking_uri(settings())
    if uri is None:
        raise TrackingError(f"no tracking server is named: set {URI}, for example to http://localhost:5000")
    try:
        return bring_up_to_date(case, store, uri)
    except (_mlflow_error(), OSError) as error:
        raise TrackingError(f"MLflow was not told: {_in_words(error, uri)}") from error


def bring_up_to_date(case: UseCase, store: Store, uri: str) -> Mirrored:
    """Logs every version and decision that is missing, and puts the aliases where they belong; nothing twice.

    It asks what there is and adds the rest, each tag last, so that after a kill the next one goes on.
    """
    models, server = store.models, _Server.open(case.name, uri)
    runs, registered, logged, judged = server.runs(), server.registered(), [], []
    verdicts = {each.candidate: each for each in models.decisions.all(case.name) if each.kind not in MANUAL}
    for version in models.versions(case.name):
        run = runs.get(version)
        if run is None or PACKAGE not in run.data.tags or version not in registered:
            files, manifest = models.load(case.name, version)
            run = run or server.begin(version, manifest)
            if PACKAGE not in run.data.tags:
                server.log_package(run, files, manifest, place=models.package(case.name, version))
            if version not in registered:
                registered[version] = server.register(run, files, manifest)
            logged.append(version)
        verdict = verdicts.get(version)
        if verdict and run.data.tags.get(DECISION) != str(verdict.number):
            server.log_decision(run, verdict, json.loads(models.decisions.evidence(verdict)), _pages(models, verdict))
            judged.append(version)
    wanted = {alias: registered[version] for alias, version in aliases_of(models.periods(case.name)).items()}
    versions = {number: version for version, number in registered.items()}
    moved = {alias: versions.get(number) if number else None for alias, number in server.move_aliases(wanted).items()}
    return Mirrored(logged=tuple(logged), judged=tuple(judged), moved=moved)


# What is said of a model: functions of its manifest, its report and the decision ---------------------------------------------


def aliases_of(periods: Sequence[Period]) -> dict[str, str]:
    """The version in force after all decisions, and the one before it, by alias; earliest period first.

    >>> def on(first, last, version): return Period(first=first, last=last, version=version)
    >>> aliases_of([on("2013-10-28", "2013-11-03", "a"), on("2013-11-04", None, "b")])
    {'champion': 'b', 'previous': 'a'}
    """
    if not periods or periods[-1].last is not None:
        return {}
    champion = periods[-1].version
    before = [period.version for period in periods if period.version != champion]
    return {CHAMPION: champion, **({PREVIOUS: before[-1]} if before else {})}


def parameters_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """How a model was made: LightGBM's parameters under their own names, and what else the recipe says."""
    training = dict(manifest["training"])
    parameters, operating = training.pop("parameters"), training.pop("operating")
    days = {f"{name}_days": " to ".join(bounds) for name, bounds in manifest["days"].items()}
    said = {**parameters, **training, **days, "family": manifest["family"], "threshold": manifest["threshold"]}
    return {name: str(value) for name, value in {**said, "operating": json.dumps(operating, sort_keys=True)}.items()}


def training_figures(manifest: Mapping[str, Any]) -> dict[str, float]:
    """What a model was trained on, and what the search promised of it where there was one."""
    rows, positives = manifest["training_rows"], manifest["positives"]
    figures = {"training/rows": rows, "training/positives": positives, "training/positive_share": positives / rows}
    worth = [trial["value"] for trial in manifest["trials"] if trial["state"] == "complete"]
    if worth:
        figures |= {"search/trials": len(manifest["trials"]), "search/best_average_precision": max(worth)}
    return {name: float(value) for name, value in figures.items()}


def holdout_figures(report: Mapping[str, Any]) -> dict[str, float]:
    """Metrics on the hold-out: the candidate's under their own names, those of a rival behind its name."""
    figures = {"holdout/rows": report["holdout_rows"], "holdout/positives": report["positives"], **report["candidate"]["metrics"]}
    for rival in ("champion", "baseline", "climatology"):
        if report.get(rival):
            figures |= {f"{rival}/{name}": value for name, value in report[rival]["metrics"].items()}
    figures |= {f"candidate_minus_champion/{name}": value for name, value in (report.get("comparison") or {}).items()}
    return {name: float(value) for name, value in figures.items()}


def decision_tags(decision: Decision, report: Mapping[str, Any]) -> dict[str, str]:
    """What was decided, when and why; a condition that failed with what was observed and wanted."""
    reasons = report["decision"]["reasons"]
    failed = [f"{each['name']}: {each['observed']}, wanted {each['wanted']}" for each in reasons if not each["passed"]]
    return {
        "ml_assets.decision": decision.kind,
        "ml_assets.decided_at": decision.decided_at,
        "ml_assets.reason": decision.reason[:TAG_LENGTH],
        "ml_assets.failed": "; ".join(failed)[:TAG_LENGTH],
        "ml_assets.champion_before": decision.champion_before or "no model",
    }


# The server ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Server:
    """An experiment and a registered model, both named like the case."""

    case: str
    client: "MlflowClient"
    experiment: str

    @staticmethod
    def open(case: str, uri: str) -> "_Server":
        """Both are made if they are not there."""
        client = _client(uri)
        _require_answer(uri)
        found = client.get_experiment_by_name(case)
        experiment = found.experiment_id if found else client.create_experiment(case)
        if not client.search_registered_models(f"name = '{case}'"):
            client.create_registered_model(case, description=f"Models of {case}. {CHAMPION} is what is in force.")
        return _Server(case=case, client=client, experiment=experiment)

    def runs(self) -> dict[str, "Run"]:
        """The run of each version; the first, should there be several."""
        found = _every(lambda token: self.client.search_runs([self.experiment], max_results=_PAGE, page_token=token))
        return {run.data.tags[VERSION]: run for run in found if VERSION in run.data.tags}  # the latest comes first

    def registered(self) -> dict[str, str]:
        """The number of each version in the registry; the first, should there be several."""
        query = f"name = '{self.case}'"
        found = _every(lambda token: self.client.search_model_versions(query, max_results=_PAGE, page_token=token))
        numbered = sorted(((int(each.version), each.tags[VERSION]) for each in found if VERSION in each.tags), reverse=True)
        return {version: str(number) for number, version in numbered}

    def begin(self, version: str, manifest: Mapping[str, Any]) -> "Run":
        """A run without anything yet."""
        tags = {VERSION: version, "ml_assets.week": manifest["week"], "ml_assets.as_of": manifest["as_of"]}
        return self.client.create_run(self.experiment, run_name=f"{manifest['week']} {version}", tags=tags)

    def log_package(self, run: "Run", files: Mapping[str, bytes], manifest: Mapping[str, Any], *, place: str) -> None:
        """Parameters, figures and the files of the package."""
        self._log(run, training_figures(manifest), at=run.info.start_time, parameters=parameters_of(manifest))
        written = {f"package/{name}": content for name, content in files.items()}
        text = json.dumps(manifest, sort_keys=True, indent=1, allow_nan=False)
        with _folder({**written, f"package/{MANIFEST}": text.encode()}) as folder:
            if (trees := _served(files).estimator) and isinstance(trees, Trees):
                _save_trees(folder / "model", trees, manifest)
            self.client.log_artifacts(run.info.run_id, str(folder))
        self.client.set_terminated(run.info.run_id)  # it takes tags and figures all the same
        self.client.set_tag(run.info.run_id, PACKAGE, place)

    def register(self, run: "Run", files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> str:
        """The number that a version gets: `mlflow.lightgbm` loads trees; of another family it is the package."""
        is_lightgbm = isinstance(_served(files).estimator, Trees)
        made = self.client.create_model_version(
            self.case,
            source=f"runs:/{run.info.run_id}/{'model' if is_lightgbm else 'package'}",
            run_id=run.info.run_id,
            tags={VERSION: manifest["version"], "ml_assets.family": manifest["family"]},
            await_creation_for=None,
        )
        number: str = made.version
        return number

    def log_decision(self, run: "Run", decision: Decision, report: Mapping[str, Any], pages: Mapping[str, bytes]) -> None:
        """Figures of the hold-out, pictures and page, and what was decided. Of several decisions the latest is what shows."""
        decided_at = int(datetime.fromisoformat(decision.decided_at).timestamp() * 1000)
        with _folder(pages) as folder:
            self.client.log_artifacts(run.info.run_id, str(folder))
        self._log(run, holdout_figures(report), at=decided_at, tags=decision_tags(decision, report))
        self.client.set_tag(run.info.run_id, DECISION, str(decision.number))

    def move_aliases(self, wanted: Mapping[str, str]) -> dict[str, str | None]:
        """Lets both aliases be of these numbers, and takes away one that is of nothing. Returns those that moved."""
        present = self.client.get_registered_model(self.case).aliases
        moved = {alias: wanted.get(alias) for alias in (CHAMPION, PREVIOUS) if wanted.get(alias) != present.get(alias)}
        for alias, number in moved.items():
            if number is None:
                self.client.delete_registered_model_alias(self.case, alias)
            else:
                self.client.set_registered_model_alias(self.case, alias, number)
        return moved

    def _log(
        self,
        run: "Run",
        figures: Mapping[str, float],
        *,
        at: int,
        parameters: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        self.client.log_batch(
            run.info.run_id,
            metrics=[Metric(name, value, at, 0) for name, value in figures.items()],
            params=[Param(name, value) for name, value in (parameters or {}).items()],
            tags=[RunTag(name, value) for name, value in (tags or {}).items()],
        )


def _client(uri: str) -> "MlflowClient":
    given = {name: value for name, value in settings().items() if name.startswith("MLFLOW_") and name != URI}
    for name, value in {**DEFAULTS, **given}.items():  # MLflow reads the environment, and its password may be in a secret
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _save_trees(folder: Path, trees: Trees, manifest: Mapping[str, Any]) -> None:
    """A folder that `mlflow.lightgbm.load_model` reads. Its inputs are numbers: a text is its position among those in `known`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about types in MLflow's own code, at its import
        import mlflow.lightgbm
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, DataType, Schema

        number = DataType.double
        mlflow.lightgbm.save_model(
            trees.booster,
            str(folder),
            signature=ModelSignature(Schema([ColSpec(number, name) for name in trees.inputs]), Schema([ColSpec(number)])),
            pip_requirements=[f"{name}=={version}" for name, version in manifest["libraries"].items()],
            metadata={"version": manifest["version"], "threshold": manifest["threshold"], **trees.to_json()},
        )


def _served(files: Mapping[str, bytes]) -> Model:
    return package.model_in(files, package.served_by(files))


def _pages(models: ModelStore, decision: Decision) -> dict[str, bytes]:
    """The page and pictures of the week's report, if it is about this candidate: a week that was made again has those of the latest."""
    pages = models.pages(decision.case, decision.effective)
    report = json.loads(pages.get("report.json", b"{}"))
    return pages if report.get("candidate", {}).get("version") == decision.candidate else {}


@contextmanager
def _folder(files: Mapping[str, bytes]) -> Iterator[Path]:
    """These files in a folder, for as long as it takes to send them."""
    with TemporaryDirectory(prefix="ml-assets-") as place:
        for name, content in files.items():
            path = Path(place, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield Path(place)


def _every(search: Callable[[str | None], Any]) -> Iterator[Any]:
    """All pages of a search."""
    token = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


def _require_answer(uri: str) -> None:
    """MLflow's own client would wait for a silent server for minutes. Any answer counts, even 401: MLflow has its own passwords
    and certificates.
    """
    if uri.startswith(("http://", "https://")):
        with suppress(requests.exceptions.SSLError):
            requests.get(f"{uri.rstrip('/')}/health", timeout=_ANSWER_SECONDS).close()


def _mlflow_error() -> type[Exception]:
    from mlflow.exceptions import MlflowException

    error: type[Exception] = MlflowException
    return error


def _in_words(error: Exception, uri: str) -> str:
    """Without name and password of the address, which errors repeat."""
    private = urlsplit(uri).netloc.rpartition("@")[0]
    said = f"{type(error).__name__}: {error}"
    return said.replace(f"{private}@", "") if private else said
