"""Packages, reports and deployments on a real disk."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ml_assets.folders import LocalFolder
from ml_assets.storage.models import DamagedPackageError, ModelStore

FILES = {"model.json": b'{"family": "lightgbm"}', "model.txt": b"tree\n" * 100, "baseline/model.json": b"{}"}
MANIFEST = {"week": "2024-02-17", "threshold": 0.25, "features": ["amount", "hour"], "windows": (1, 7), "days": {10: 1, 9: 2}}


class KilledError(BaseException):
    """What a process that is killed never gets past."""


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(root=LocalFolder(tmp_path / "store"))


@pytest.fixture
def version(store: ModelStore) -> str:
    return store.save("small", FILES, MANIFEST)


def kill_renames(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KilledError

    monkeypatch.setattr(Path, "rename", killed)
    monkeypatch.setattr(Path, "replace", killed)


def visible(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not any(part.startswith(".") for part in path.parts))


def test_a_package_comes_back_as_it_was_saved(store: ModelStore, version: str) -> None:
    files, manifest = store.load("small", version)

    assert files == FILES
    assert manifest["threshold"] == 0.25
    assert manifest["version"] == version == f"2024-02-17-{manifest['content_hash'][:8]}"


def test_same_content_is_the_same_version_in_any_order_and_any_place(store: ModelStore, version: str, tmp_path: Path) -> None:
    turned = dict(reversed(MANIFEST.items()))

    assert store.save("small", dict(reversed(FILES.items())), turned) == version
    assert ModelStore(root=LocalFolder(tmp_path / "elsewhere")).save("other", FILES, MANIFEST) == version
    assert len(list((store.root.path / "models" / "small").iterdir())) == 1


def test_another_file_or_manifest_is_another_version(store: ModelStore, version: str) -> None:
    others = {
        store.save("small", {**FILES, "model.txt": b"other"}, MANIFEST),
        store.save("small", FILES, {**MANIFEST, "threshold": 0.3}),
        store.save("small", {**FILES, "more.txt": b""}, MANIFEST),
    }

    assert len(others | {version}) == 4
    assert store.load("small", version)[0] == FILES


def test_saving_again_leaves_the_files_alone(store: ModelStore, version: str) -> None:
    before = (Path(store.package("small", version)) / "model.txt").stat()

    store.save("small", FILES, MANIFEST)

    after = (Path(store.package("small", version)) / "model.txt").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_damaged_file_is_named(name: str, store: ModelStore, version: str) -> None:
    file = Path(store.package("small", version)) / name
    file.write_bytes(file.read_bytes()[:-1] + b"X")

    with pytest.raises(DamagedPackageError, match=f"{name} is damaged"):
        store.load("small", version)


def test_a_missing_file_is_named(store: ModelStore, version: str) -> None:
    (Path(store.package("small", version)) / "model.txt").unlink()

    with pytest.raises(DamagedPackageError, match=r"model\.txt is missing"):
        store.load("small", version)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"week": 1', "null"])
def test_a_broken_manifest_is_named(text: str, store: ModelStore, version: str) -> None:
    (Path(store.package("small", version)) / "manifest.json").write_text(text)

    with pytest.raises(DamagedPackageError, match=r"manifest\.json is damaged"):
        store.load("small", version)


def test_a_changed_manifest_is_noticed(store: ModelStore, version: str) -> None:
    file = Path(store.package("small", version)) / "manifest.json"
    file.write_text(file.read_text().replace("0.25", "0.01"))

    with pytest.raises(DamagedPackageError, match=r"manifest\.json is damaged"):
        store.load("small", version)


def test_a_package_under_the_name_of_another_is_noticed(store: ModelStore, version: str) -> None:
    shutil.copytree(Path(store.package("small", version)), Path(store.package("small", "2024-02-17-00000000")))

    with pytest.raises(DamagedPackageError, match=version):
        store.load("small", "2024-02-17-00000000")


def test_another_content_under_an_existing_version_is_refused(store: ModelStore, version: str) -> None:
    other = store.save("small", {**FILES, "model.txt": b"other"}, MANIFEST)
    shutil.rmtree(Path(store.package("small", version)))
    Path(store.package("small", other)).rename(Path(store.package("small", version)))

    with pytest.raises(DamagedPackageError):
        store.save("small", FILES, MANIFEST)
    assert (Path(store.package("small", version)) / "model.txt").read_bytes() == b"other"


def test_an_unknown_version_is_said_to_be_unknown(store: ModelStore) -> None:
    with pytest.raises(FileNotFoundError, match="2024-02-17-12345678"):
        store.load("small", "2024-02-17-12345678")


@pytest.mark.parametrize("name", ["../escape", "/absolute", "manifest.json", ""])
def test_a_file_cannot_leave_its_package(name: str, store: ModelStore) -> None:
    with pytest.raises(ValueError, match="cannot be a file"):
        store.save("small", {name: b""}, MANIFEST)


def test_a_kill_before_the_rename_leaves_no_package_and_the_next_save_works(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        kill_renames(patched)
        with pytest.raises(KilledError):
            store.save("small", FILES, MANIFEST)
    assert store.versions("small") == []
    assert [path for path in store.root.path.rglob("*") if path.is_file()]  # the dead file that nobody reads

    assert store.load("small", store.save("small", FILES, MANIFEST))[0] == FILES


def test_many_writers_of_one_package_agree(store: ModelStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: store.save("small", FILES, MANIFEST), range(32)))

    assert len(set(versions)) == 1
    assert [path.name for path in (store.root.path / "models" / "small").iterdir()] == [versions[0]]


def test_a_report_is_replaced_whole(store: ModelStore) -> None:
    store.save_report("small", "2024-02-17", "{}", "<p>old</p>", {"roc.png": b"old", "gone.png": b"old"})
    place = store.save_report("small", "2024-02-17", '{"new": 1}', None, {"roc.png": b"new"})

    assert store.report("small", "2024-02-17") == '{"new": 1}'
    assert sorted(path.name for path in Path(place).iterdir()) == ["report.json", "roc.png"]
    assert store.pages("small", "2024-02-17") == {"report.json": b'{"new": 1}', "roc.png": b"new"}


def test_reports_are_in_order_of_weeks_and_a_week_without_one_has_none(store: ModelStore) -> None:
    for week in ("2024-02-24", "2024-02-17"):
        store.save_report("small", week, f'"{week}"', None, {})

    assert list(store.reports("small").items()) == [("2024-02-17", '"2024-02-17"'), ("2024-02-24", '"2024-02-24"')]
    assert (store.report("small", "2024-03-02"), store.pages("small", "2024-03-02")) == (None, {})
    assert store.reports("other") == {}


def test_a_kill_while_a_report_is_written_leaves_the_old_one(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save_report("small", "2024-02-17", '"old"', None, {})
    with monkeypatch.context() as patched:
        kill_renames(patched)
        with pytest.raises(KilledError):
            store.save_report("small", "2024-02-17", '"new"', None, {})
        with pytest.raises(KilledError):
            store.save_report("small", "2024-02-24", '"new"', None, {})

    assert store.reports("small") == {"2024-02-17": '"old"'}


def test_a_report_is_there_at_every_moment_of_its_replacement(store: ModelStore) -> None:
    store.save_report("small", "2024-02-17", '"0"', None, {})
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(
            lambda: [store.save_report("small", "2024-02-17", f'"{i}"', None, {"roc.png": b"x" * 10_000}) for i in range(100)]
        )
        while not writing.done():
            text = store.report("small", "2024-02-17")
            assert text is not None
            assert text.startswith('"')
            assert text.endswith('"')


def test_a_deployment_is_in_force_from_its_week_until_the_next(store: ModelStore, version: str) -> None:
    later = store.save("small", FILES, {**MANIFEST, "week": "2024-03-02"})
    store.deploy("small", "2024-03-02", later, {"promoted": True})
    store.deploy("small", "2024-02-17", version, {"promoted": True})

    assert list(store.deployments("small").items()) == [("2024-02-17", version), ("2024-03-02", later)]
    assert store.in_force("small", "2024-02-16") is None
    assert store.in_force("small", "2024-02-17") == ("2024-02-17", version)
    assert store.in_force("small", "2024-03-01") == ("2024-02-17", version)
    assert store.in_force("small", "2024-03-02") == ("2024-03-02", later)
    assert store.in_force("small", "2099-01-01") == ("2024-03-02", later)
    assert store.in_force("other", "2099-01-01") is None


def current(store: ModelStore) -> dict[str, object] | None:
    file = store.root.path / "deployments" / "small" / "current.json"
    return {key: value for key, value in json.loads(file.read_text()).items() if key != "change"} if file.exists() else None


def test_current_points_to_the_latest_deployment_also_after_a_withdrawal(store: ModelStore, version: str) -> None:
    store.deploy("small", "2024-03-02", version, {"promoted": True, "champion_before": None})
    store.deploy("small", "2024-02-17", version, {})
    assert current(store) == {
        "case": "small",
        "week": "2024-03-02",
        "version": version,
        "decision": {"promoted": True, "champion_before": None},
    }

    store.withdraw("small", "2024-03-02")
    assert (current(store) or {})["week"] == "2024-02-17"
    assert store.deployments("small") == {"2024-02-17": version}

    store.withdraw("small", "2024-02-17")
    store.withdraw("small", "2024-02-17")
    assert current(store) is None
    assert store.deployments("small") == {}


def test_a_version_that_does_not_exist_cannot_go_live(store: ModelStore) -> None:
    with pytest.raises(FileNotFoundError, match="cannot go live"):
        store.deploy("small", "2024-02-17", "2024-02-17-12345678", {})
    assert store.in_force("small", "2024-02-17") is None


def test_a_kill_during_a_deployment_leaves_the_old_one_in_force(
    store: ModelStore, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.deploy("small", "2024-02-17", version, {})
    with monkeypatch.context() as patched:
        kill_renames(patched)
        with pytest.raises(KilledError):
            store.deploy("small", "2024-02-24", version, {})

    assert store.in_force("small", "2024-02-24") == ("2024-02-17", version)
    assert (current(store) or {})["week"] == "2024-02-17"
    store.deploy("small", "2024-02-24", version, {})
    assert (current(store) or {})["week"] == "2024-02-24"


def test_deployments_of_many_weeks_at_once_end_with_the_latest(store: ModelStore, version: str) -> None:
    weeks = [f"2024-02-{day:02d}" for day in range(1, 29)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda week: store.deploy("small", week, version, {}), weeks))

    assert list(store.deployments("small")) == weeks
    assert (current(store) or {})["week"] == "2024-02-28"
