"""What the process was told: its environment, and the secrets that `ML_ASSETS_SECRETS` names in AWS Secrets Manager.

Belongs here: where settings come from. Does not: what they mean (each module knows its own).
"""

import json
import os
import time
from collections import ChainMap
from collections.abc import Mapping
from functools import lru_cache

SECRETS = "ML_ASSETS_SECRETS"
_KNOWN_SECONDS = 300.0
"""So long a secret is not asked for again: one that is changed is known then."""


class SecretError(ValueError):
    """A secret cannot be read; the message names it and says what to do, and nothing of what is in it."""


def settings() -> Mapping[str, str]:
    """Every setting by its name. What the environment says itself goes before what a secret says.

    A secret is a JSON object of settings, such as `{"PAYMENTS_DATABASE": "postgresql+psycopg://…"}`. `ML_ASSETS_SECRETS` names one or more,
    by name or ARN, with commas between them.

    Raises:
        SecretError: one cannot be read.
    """
    names = tuple(filter(None, (name.strip() for name in os.environ.get(SECRETS, "").split(","))))
    if not names:
        return os.environ
    aws = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    return ChainMap(os.environ, dict(_secrets(names, aws, int(time.monotonic() // _KNOWN_SECONDS))))


@lru_cache(maxsize=1)
def _secrets(names: tuple[str, ...], _aws: tuple[tuple[str, str], ...], _when: int) -> Mapping[str, str]:
    import boto3  # takes a quarter of a second
    from botocore.exceptions import BotoCoreError, ClientError

    found: dict[str, str] = {}
    try:
        client = boto3.client("secretsmanager", region_name=os.environ.get("AWS_REGION"))
        for name in names:
            found |= _read(name, client.get_secret_value(SecretId=name).get("SecretString", ""))
    except (BotoCoreError, ClientError) as error:
        raise SecretError(
            f"{SECRETS}: {', '.join(names)} cannot be read ({error}); check the names, AWS_REGION, and that this process "
            "may call secretsmanager:GetSecretValue"
        ) from None
    return found


def _read(name: str, text: str) -> dict[str, str]:
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise SecretError(f"{SECRETS}: {name} is no JSON object of texts, expected one setting or more, each a name and its value")
    return content
