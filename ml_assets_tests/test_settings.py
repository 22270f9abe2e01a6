"""Settings out of AWS Secrets Manager (moto's server)."""

import json
from collections.abc import Iterator

import pytest

from ml_assets import settings as module
from ml_assets.settings import SECRETS, SecretError, settings
from ml_assets_tests.glue import Aws, running_aws

PASSWORD = "postgresql+psycopg://reader:hunter2@db/bank"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    with running_aws() as found:
        for name, value in found.settings.items():
            monkeypatch.setenv(name, value)
        module._secrets.cache_clear()
        yield found
        module._secrets.cache_clear()


def test_without_a_secret_the_environment_is_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRETS, raising=False)
    monkeypatch.setenv("PAYMENTS", "here")
    assert settings()["PAYMENTS"] == "here"


def test_secrets_are_settings_and_the_environment_goes_before_them(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.make_secret("bank/database", json.dumps({"PAYMENTS_DATABASE": PASSWORD, "PAYMENTS_TABLE": "payments"}))
    aws.make_secret("bank/broker", json.dumps({"KAFKA_PASSWORD": "secret"}))
    monkeypatch.setenv(SECRETS, "bank/database, bank/broker")
    monkeypatch.setenv("PAYMENTS_TABLE", "others")
    found = settings()
    assert (found["PAYMENTS_DATABASE"], found["KAFKA_PASSWORD"], found["PAYMENTS_TABLE"]) == (PASSWORD, "secret", "others")
    assert found.get("NOTHING") is None


def test_a_changed_secret_is_known_after_a_while_and_not_asked_for_each_time(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.make_secret("bank/database", json.dumps({"PAYMENTS_DATABASE": "old"}))
    monkeypatch.setenv(SECRETS, "bank/database")
    now = 1_000_000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    assert settings()["PAYMENTS_DATABASE"] == "old"
    aws.client("secretsmanager").put_secret_value(SecretId="bank/database", SecretString=json.dumps({"PAYMENTS_DATABASE": "new"}))
    assert settings()["PAYMENTS_DATABASE"] == "old"
    now += module._KNOWN_SECONDS
    assert settings()["PAYMENTS_DATABASE"] == "new"


@pytest.mark.parametrize("text", [PASSWORD, json.dumps([PASSWORD]), json.dumps({"PASSWORD": {"is": "hunter2"}})])
def test_a_secret_of_another_form_is_named_and_not_told(text: str, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.make_secret("bank/database", text)
    monkeypatch.setenv(SECRETS, "bank/database")
    with pytest.raises(SecretError, match="bank/database is no JSON object of texts") as failed:
        settings()
    assert "hunter2" not in str(failed.value)


def test_a_secret_that_is_not_there_or_not_allowed_is_named(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRETS, "bank/nobody")
    with pytest.raises(SecretError, match=r"ML_ASSETS_SECRETS: bank/nobody cannot be read .*ResourceNotFound.*GetSecretValue"):
        settings()
    aws.let_nobody_in()
    with pytest.raises(SecretError, match=r"bank/nobody cannot be read .*Unrecognized|InvalidClientToken"):
        settings()
