"""The model in force, as a scorer holds it: loaded whole, tried on its own test events, swapped for the next one between two batches."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ml_assets.sources.json_lines import NO_FIELD
from ml_assets.stages.model import Model
from ml_assets.stages.package import model_in, served_by, wrong_answers
from ml_assets.storage.models import ModelStore
from ml_assets.use_case import DType, UseCase

log = logging.getLogger("ml_assets.serving")


class RefusedPackageError(ValueError):
    """A deployed package that must not score: it is damaged, was made for other features, or does not answer its own test events."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Live:
    """A package in force."""

    version: str
    week: str
    threshold: float
    model: Model
    decision: dict[str, Any]
    features: tuple[dict[str, Any], ...]
    names: frozenset[str]
    """Of the features that the model reads."""
    texts: frozenset[str]
    """Those of them that are texts."""
    given: Callable[[bytes], Sequence[Any]] = field(init=False, repr=False, compare=False)
    """The features in a body `{"features": {name: value, …}}`, in the order of the model's inputs, None where null.

    It raises msgspec.DecodeError where the body is anything else.
    """

    def __post_init__(self) -> None:
        object.__setattr__(self, "given", _given(self.model.inputs, self.texts))


@dataclass(kw_only=True)
class InForce:
    """Follows what is deployed for a use case. `live` is what scores now; it is replaced as a whole."""

    case: UseCase
    models: ModelStore
    live: Live | None = None
    refused: dict[str, str] = field(default_factory=dict)
    """Why a version that is deployed does not score, by version."""

    def look(self) -> bool:
        """Loads what is deployed, if that is another version than the one that scores; whether it was swapped.

        A package that is refused stays refused until another one is deployed; what scored before goes on.
        """
        current = self.models.current(self.case.name)
        if current is None or (self.live and current["version"] == self.live.version) or current["version"] in self.refused:
            return False
        try:
            self.live = load(self.case, self.models, current)
        except (ValueError, KeyError, OSError) as error:
            self.refused = {current["version"]: str(error)}
            log.error("%s: the deployed model %s is refused: %s", self.case.name, current["version"], error)
            return False
        self.refused = {}
        log.info("%s: model %s is in force", self.case.name, self.live.version)
        return True


def _given(inputs: Sequence[str], texts: frozenset[str]) -> Callable[[bytes], Sequence[Any]]:
    """By a type made for them, so that their names are checked while they are read."""
    # Structs of values alone are no garbage in a cycle.
    fields = {f"f{number}": name for number, name in enumerate(inputs)}
    types = [(field, str | None if name in texts else float | None) for field, name in fields.items()]
    if any(map(NO_FIELD.search, inputs)):
        return _given_by_name(fields, types)
    features = msgspec.defstruct("Features", types, rename=fields, forbid_unknown_fields=True, gc=False)
    decode = msgspec.json.Decoder(msgspec.defstruct("Given", [("features", features)], forbid_unknown_fields=True, gc=False)).decode
    return lambda body: msgspec.structs.astuple(decode(body).features)  # type: ignore[attr-defined]


def _given_by_name(fields: Mapping[str, str], types: Sequence[tuple[str, Any]]) -> Callable[[bytes], Sequence[Any]]:
    """The same where a name can be none of a struct: slower, since a dictionary stands between."""
    place = {name: field for field, name in fields.items()}
    features = msgspec.defstruct("Features", types, gc=False)
    members = msgspec.defstruct("Given", [("features", dict[str, Any])], forbid_unknown_fields=True, gc=False)
    decode = msgspec.json.Decoder(members).decode

    def given(body: bytes) -> Sequence[Any]:
        values = decode(body).features  # type: ignore[attr-defined]
        if unknown := values.keys() - place.keys():
            raise msgspec.ValidationError(f"{min(unknown)!r} is no feature")
        return msgspec.structs.astuple(msgspec.convert({place[name]: value for name, value in values.items()}, features))

    return given


def load(case: UseCase, models: ModelStore, current: dict[str, Any]) -> Live:
    """The package that is deployed.

    Raises:
        RefusedPackageError: it must not score.
        DamagedPackageError, FileNotFoundError: it is not what was saved.
    """
    files, manifest = models.load(case.name, current["version"])
    declared = {column.name: column.dtype for column in case.features.columns}
    asked = {feature["name"]: DType(feature["dtype"]) for feature in manifest["features"]}
    if other := [name for name, dtype in asked.items() if declared.get(name) is not dtype]:
        raise RefusedPackageError(f"it was trained on features that are not declared like that now: {', '.join(other[:5])}")
    if wrong := wrong_answers(files, manifest):
        raise RefusedPackageError(f"it does not answer its own test events: {wrong[0]}")
    model = model_in(files, served_by(files))
    return Live(
        version=current["version"],
        week=current["week"],
        threshold=manifest["threshold"],
        model=model,
        decision=dict(current["decision"]),
        features=tuple(manifest["features"]),
        names=frozenset(model.inputs),
        texts=frozenset(name for name, dtype in asked.items() if dtype is DType.STRING and name in model.inputs),
    )
