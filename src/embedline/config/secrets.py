"""References to secrets: the configuration holds a reference, never the secret itself."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator

from embedline.errors import InputError
from embedline.redaction import keep_secret, shows_secret, stripped, without_passwords

# Where a cluster mounts the secrets that `secret:NAME/KEY` names: one folder per secret, one file per key.
MOUNTED_AT = Path("/run/secrets/embedline")
FOLDER = "EMBEDLINE_SECRETS"
FORMS = "env:NAME or secret:NAME/KEY"
_ENV = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_MOUNTED = re.compile(r"secret:([a-z0-9][a-z0-9.-]*)/([A-Za-z0-9_-][A-Za-z0-9._-]*)")


def _reference(value: object) -> str:
    """Refuse a value without repeating it in the message: it may be the secret."""
    if isinstance(value, str) and (not value or _ENV.fullmatch(value) or _MOUNTED.fullmatch(value)):
        return value
    raise ValueError(f"takes {FORMS}, never the secret itself")


SecretRef = Annotated[str, BeforeValidator(_reference)]
"""`env:NAME` (a variable of the process) or `secret:NAME/KEY` (a mounted secret); empty: none."""


def resolve_secret(reference: str, *, where: str) -> str:
    """Return the secret that a reference names, without line breaks around it; it is redacted from now on.

    Args:
        where: config key or option that holds the reference, for the message.

    Raises:
        InputError: it is not a reference, there is no such variable or file, or it has several lines.
    """
    if match := _ENV.fullmatch(reference):
        secret = os.environ.get(match[1], "")
        missing = f"the environment has no {match[1]}."
    elif match := _MOUNTED.fullmatch(reference):
        file = secrets_folder() / match[1] / match[2]
        secret = file.read_text(encoding="utf-8") if file.is_file() else ""
        missing = f"there is no {file}."
    else:
        raise InputError(f"takes {FORMS}, never the secret itself.", where=where)
    if not (secret := stripped(secret)):
        raise InputError(missing, where=where, fix="Set it where the process starts.")
    keep_secret(secret)
    return one_line_secret(secret, where=f"{where} ({reference})")


def secret_variable(name: str) -> str:
    """Return a secret that an environment variable holds itself, as `resolve_secret`; empty without one."""
    return one_line_secret(stripped(os.environ.get(name, "")), where=name)


def one_line_secret(secret: str, *, where: str) -> str:
    """Return a secret that can stand in an HTTP header.

    Raises:
        InputError: it holds a line break or another control character.
    """
    if not secret.isprintable():
        raise InputError(
            "holds a line break or another control character.", where=where, fix="Set it to one line."
        )
    return secret


def refuse_secrets(text: str, *, where: str) -> None:
    """Refuse a text that others will read as it is: it holds a known secret.

    Raises:
        InputError: the text holds a secret.
    """
    if shows_secret(text):
        raise InputError("holds the value of a secret.", where=where, fix="Refer to it as env:NAME.")


def refuse_password(uri: str, *, where: str) -> None:
    """Refuse an address with a password: it would be written to plans, logs and the tracker.

    Raises:
        InputError: the address contains a password.
    """
    if without_passwords(uri) != uri:
        raise InputError(
            "holds a password.",
            where=f"{where}: {without_passwords(uri)}",
            fix="Leave it out of the address; MLflow reads MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, PostgreSQL PGPASSWORD.",
        )


def mounted_secrets(config: BaseModel) -> list[str]:
    """Return the names of the mounted secrets that a config refers to as `secret:NAME/KEY`."""
    return sorted({match[1] for text in _texts(config.model_dump()) if (match := _MOUNTED.fullmatch(text))})


def secret_variables(config: BaseModel) -> list[str]:
    """Return the names of the environment variables that a config refers to as `env:NAME`."""
    return sorted({match[1] for text in _texts(config.model_dump()) if (match := _ENV.fullmatch(text))})


def secrets_folder() -> Path:
    """Return the folder of mounted secrets: EMBEDLINE_SECRETS, else where a cluster mounts them."""
    return Path(os.environ.get(FOLDER) or MOUNTED_AT)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
