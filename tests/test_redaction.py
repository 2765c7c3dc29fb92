"""Redaction: no known secret survives in a text, in any form, and other texts stay as they are."""

from __future__ import annotations

import base64
import html
import io
import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import typer
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url
from typer.testing import CliRunner

from embedline.artifacts.tracker import Tracker
from embedline.cli.shared import AsJson, Debug, command
from embedline.config.load import load_config
from embedline.config.secrets import refuse_password, resolve_secret
from embedline.errors import InputError, first_line
from embedline.execution.plain_failure import plain_failure
from embedline.orchestration.compile import pipeline_texts
from embedline.redaction import (
    RedactedStream,
    keep_secret,
    strip_secret_variables,
    without_passwords,
    without_secrets,
)
from embedline.registry.ledger import Entry

CANARY = "hunter2/canary+x"
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "quoted": quote,
    "quoted whole": lambda secret: quote(secret, safe=""),
    "quoted in lower case": lambda secret: quote(secret, safe="").replace("%2F", "%2f"),
    "quoted twice": lambda secret: quote(quote(secret, safe=""), safe=""),
    "form": quote_plus,
    "repr": repr,
    "repr with a line break": lambda secret: repr(secret + "\n"),
    "repr of bytes": lambda secret: repr(f"Bearer {secret}\n".encode()),
    "repr of repr": lambda secret: repr([repr(secret + "'\"")]),
    "json": json.dumps,
    "json of json": lambda secret: json.dumps(json.dumps({"a": secret}, ensure_ascii=False)),
    "html": html.escape,
    "basic": lambda secret: base64.b64encode(f"me:{secret}".encode()).decode(),
    "basic of a longer name": lambda secret: base64.b64encode(f"my:{secret}:x".encode()).decode(),
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "base64 in an address": lambda secret: quote(base64.b64encode(f"u:{secret}".encode()).decode(), safe=""),
    "base64 for addresses": lambda secret: base64.urlsafe_b64encode(f"abc{secret}".encode()).decode(),
}
# Secrets: printable, of any alphabet, as they stand in one line.
_LETTERS = st.characters(blacklist_categories=("Cs", "Cc", "Cf", "Zl", "Zp", "Zs", "Co", "Cn"))
_SECRET = st.text(
    _LETTERS | st.sampled_from(" /+@:?#%&='\"\\"),
    min_size=6,
    max_size=40,
).filter(lambda text: text.strip() == text)
_AROUND = st.text(max_size=20)


def _core(form: str) -> str:
    """Return the characters that only the secret can have made."""
    return form.strip("'\"")


@pytest.fixture(autouse=True)
def no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without the secrets of this machine and of other tests."""
    from embedline import redaction

    monkeypatch.setattr(redaction, "_resolved", set())


@given(st.sampled_from(sorted(FORMS)), _SECRET, _AROUND, _AROUND)
@settings(max_examples=400, deadline=None)
def test_no_form_of_a_secret_survives(form: str, secret: str, before: str, after: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KFP_TOKEN", f"{secret}\n")
        shown = FORMS[form](secret)
        assume(secret not in before + after and "*" not in secret)
        redacted = without_secrets(f"{before} {shown} {after}")
        assert secret not in redacted
        assert _core(shown) not in redacted
        assert without_secrets(redacted) == redacted


@given(st.lists(_SECRET, min_size=2, max_size=4), st.data())
@settings(max_examples=50, deadline=None)
def test_no_secret_of_several_survives(secrets: list[str], data: st.DataObject) -> None:
    """Secrets that begin, contain or continue each other."""
    for secret in secrets:
        assume("*" not in secret)
        keep_secret(secret)
    cut = data.draw(st.integers(0, len(secrets[0])))
    text = f"{secrets[0][:cut]}{''.join(secrets)}{secrets[-1]}"
    redacted = without_secrets(text)
    assert not [secret for secret in secrets if secret in redacted]


@given(st.text(max_size=200))
def test_text_without_secrets_is_unchanged(text: str) -> None:
    assume("://" not in text)
    keep_secret(CANARY)
    assert without_secrets(text) == text


@pytest.mark.parametrize("value", ["abc", "runs", "minio", "     ", "abc\n"])
def test_short_values_are_words(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", value)
    assert without_secrets("abc runs in minio") == "abc runs in minio"
    assert without_secrets("at postgresql://me:abc@db") == "at postgresql://me:***@db"


@pytest.mark.parametrize(
    "name",
    [
        *("KFP_TOKEN", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "HF_TOKEN", "PGPASSWORD"),
        *("HUGGING_FACE_HUB_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        *("MYSQL_PWD", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_CONNECTION_STRING", "our_password"),
    ],
)
def test_variables_named_as_secrets_are_stripped_and_redacted(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, f"\ufeff{CANARY}\r\n")
    assert without_secrets(f"x {CANARY} y") == "x *** y"
    strip_secret_variables()
    assert os.environ[name] == CANARY


@pytest.mark.parametrize(
    "name", ["TOKENIZERS_PARALLELISM", "EMBEDLINE_SECRETS", "AWS_WEB_IDENTITY_TOKEN_FILE", "HF_TOKEN_PATH"]
)
def test_paths_and_switches_are_no_secrets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/run/secrets")
    assert without_secrets("see /run/secrets") == "see /run/secrets"


def test_the_password_of_a_proxy_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:pass%2Fword@proxy.example.org:3128")
    assert without_secrets("user me, pass/word or pass%2Fword") == "user me, *** or ***"


def test_an_unknown_token_of_a_header_is_redacted() -> None:
    """Kubernetes' client reads its own; words after basic and bearer stay."""
    assert without_secrets("Invalid header value b'bearer eyJhbGciOi.J9_x-2\\n'") == (
        "Invalid header value b'bearer ***\\n'"
    )
    for text in ("basic authentication failed", "Bearer token of the other registry", "basic 2026"):
        assert without_secrets(text) == text


def test_each_line_of_a_secret_is_redacted() -> None:
    keep_secret("-----BEGIN KEY-----\nMIIEvQIBADAN\n-----END KEY-----\n")
    assert without_secrets("log | MIIEvQIBADAN") == "log | ***"


_PASSWORD = st.text("abcXYZ019.:!$&'()*+,;=~%-/?#", min_size=1, max_size=20)


@given(st.sampled_from(["postgresql", "postgresql+psycopg2", "mysql+pymysql", "mssql+pyodbc"]), _PASSWORD)
def test_passwords_of_databases_are_refused_and_redacted(scheme: str, password: str) -> None:
    """What SQLAlchemy takes for the password: everything up to the @."""
    address = f"{scheme}://me:{password}@db:5432/mlflow"
    assert make_url(address.replace("%", "%25")).password == password
    assert (
        without_passwords(f"cannot reach {address} now")
        == f"cannot reach {scheme}://me:***@db:5432/mlflow now"
    )
    with pytest.raises(InputError, match="holds a password"):
        refuse_password(address, where="--uri")


@pytest.mark.parametrize("password", ["a@b", "a@/b", "p@ss:w/o?r#d", "12/34", "/lead", "#", 'a"b/c'])
def test_password_with_reserved_characters_is_refused_by_the_config(password: str, tmp_path: Path) -> None:
    preset = tmp_path / "preset.yaml"
    preset.write_text("name: tiny\ndata:\n  sources: [{path: pairs.jsonl}]\n", encoding="utf-8")
    override = f"tracking.uri={json.dumps(f'postgresql://me:{password}@db/mlflow')}"
    with pytest.raises(InputError, match=r"tracking\.uri: holds a password") as refused:
        load_config(str(preset), [override])
    assert f"me:{password}" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "redacted"),
    [
        ("mysql://id:Redh4t@321#@host:3306/mlflow", "mysql://id:***@host:3306/mlflow"),
        (
            "postgresql+psycopg2://me:a_[]:=?b//db?host=10.0.0.1",
            "postgresql+psycopg2://me:***//db?host=10.0.0.1",
        ),
        ("postgresql://me:pa55word?host=/var/run", "postgresql://me:***/var/run"),
        ("redis://:pa/ss@cache:6379/0", "redis://:***@cache:6379/0"),
        ("postgresql://db:5432/mlflow?host=x", "postgresql://db:5432/mlflow?host=x"),
        ("postgresql://db:5432", "postgresql://db:5432"),
        ("postgresql://me@db/mlflow", "postgresql://me@db/mlflow"),
    ],
)
def test_addresses_from_bug_reports(address: str, redacted: str) -> None:
    assert without_passwords(address) == redacted
    assert without_passwords(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        '{"uri":"http://h:5000","mail":"a@b"}',
        '{"uri":"postgresql://db:5432/y","mail":"a@b"}',
        "file://C:/x@y",
        "http://[::1]:5000/a@b",
        "models:/name@champion",
        "git+https://example.org/x@v1",
        "http://h:5000,http://i:5000 me@x",
    ],
)
def test_an_at_sign_without_a_password_stays(text: str) -> None:
    assert without_passwords(text) == text


def test_an_error_is_redacted_before_it_is_cut() -> None:
    keep_secret(CANARY)
    for length in range(280, 301):
        assert CANARY[:6] not in first_line(ValueError("x" * length + CANARY))


def test_errors_tags_and_reasons_are_redacted(tmp_path: Path) -> None:
    keep_secret(CANARY)
    error = InputError(f"no {CANARY}", where=f"at {CANARY}", fix=f"Set {CANARY}.")
    assert str(error) == "at ***: no *** Set ***."
    tracker = Tracker(tmp_path)
    tracker.params({"a": CANARY})
    tracker.tags({"b": f"x{CANARY}"})
    assert CANARY not in tracker.path.read_text(encoding="utf-8")
    assert "***" in Entry("champion", 1, None, f"for {CANARY}", by=CANARY).as_text()
    assert CANARY not in Entry("champion", 1, None, f"for {CANARY}", by=CANARY).as_text()


def test_a_resolved_reference_is_stripped_and_redacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "token").write_bytes(b"\xef\xbb\xbf" + CANARY.encode() + b"\r\n")
    monkeypatch.setenv("EMBEDLINE_SECRETS", str(tmp_path))
    monkeypatch.setenv("STAGING", f"{CANARY}-2\n")
    assert resolve_secret("secret:mlflow/token", where="x") == CANARY
    assert resolve_secret("env:STAGING", where="x") == f"{CANARY}-2"
    assert without_secrets(f"{CANARY} {CANARY}-2") == "*** ***"
    monkeypatch.setenv("STAGING", "abc\ndefghi")
    with pytest.raises(InputError, match=r"--to-token \(env:STAGING\): holds a line break") as refused:
        resolve_secret("env:STAGING", where="--to-token")
    assert "defghi" not in str(refused.value)


def test_settings_with_a_secret_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be shown as parameters of a pipeline's run."""
    preset = tmp_path / "preset.yaml"
    preset.write_text("name: tiny\ndata:\n  sources: [{path: pairs.jsonl}]\n", encoding="utf-8")
    monkeypatch.setenv("HF_TOKEN", CANARY)
    with pytest.raises(InputError, match="description: holds the value of a secret") as refused:
        load_config(str(preset), [f"description=with {CANARY}"])
    with pytest.raises(InputError, match="overrides: holds the value of a secret"):
        pipeline_texts(str(preset), [f"description=with {CANARY}"])
    assert CANARY not in str(refused.value)
    monkeypatch.setenv("HF_TOKEN", "champion")  # a word: the default of promote.alias
    assert load_config(str(preset), []).promote.alias == "champion"


@given(st.lists(st.integers(1, 7), max_size=20), st.booleans())
def test_a_stream_redacts_a_secret_that_arrives_in_pieces(sizes: list[int], binary: bool) -> None:
    keep_secret(CANARY)
    under = io.BytesIO() if binary else io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    stream, text = RedactedStream(under), f"före {CANARY} after\nnext"
    rest: str = text
    for size in sizes:
        piece, rest = rest[:size], rest[size:]
        stream.write(piece.encode() if binary else piece)
    stream.write(rest.encode() if binary else rest)
    stream.flush()
    written = under if isinstance(under, io.BytesIO) else under.buffer
    assert written.getvalue().decode() == "före *** after\nnext"  # type: ignore[attr-defined]


def test_a_process_shows_no_secret(tmp_path: Path) -> None:
    """Prints, logs of a library that was set up before, bytes, a traceback, on an ASCII terminal too."""
    script = tmp_path / "shows.py"
    script.write_text(
        "import logging, os, sys\n"
        "logging.basicConfig()\n"
        "from embedline.redaction import protect_process\n"
        "import click\n"
        "protect_process()\n"
        "token = os.environ['KFP_TOKEN']\n"
        "print('printed', token, end='')\n"
        "print()\n"
        "click.echo(f'echoed {token} ✓')\n"
        "sys.stdout.buffer.write(f'bytes {token}\\n'.encode())\n"
        "logging.getLogger('library').warning('logged %s', token)\n"
        "raise ValueError(f'Invalid header value {token!r}')\n",
        encoding="utf-8",
    )
    for encoding in ("utf-8", "ascii"):
        environment = {**os.environ, "KFP_TOKEN": f"{CANARY}\n", "PYTHONIOENCODING": encoding}
        ended = subprocess.run(
            [sys.executable, str(script)], env=environment, capture_output=True, timeout=120
        )
        output, errors = ended.stdout.decode(), ended.stderr.decode()
        assert CANARY not in output + errors
        assert "printed ***" in output
        assert "echoed *** ✓" in output
        assert "bytes ***" in output
        assert "logged ***" in errors
        assert "ValueError: Invalid header value '***'" in errors


def test_a_failed_command_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client names the header that it cannot send; --debug prints the traceback."""
    commands = typer.Typer(pretty_exceptions_enable=False)

    @commands.command()
    @command
    def fails(as_json: AsJson = False, debug: Debug = False) -> None:
        raise ValueError(f"Invalid header value {f'Bearer {CANARY}'.encode()!r}")

    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", CANARY)
    for option in ([], ["--json"], ["--debug"]):
        ended = CliRunner().invoke(commands, option)
        assert ended.exit_code == 1
        assert CANARY not in ended.output
        assert "Bearer ***" in ended.output


def test_a_component_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{CANARY}\n")
    try:
        with plain_failure():
            logging.getLogger("botocore").warning("signing with %s", CANARY)
            raise RuntimeError(f"cannot sign with {CANARY!r}")
    except RuntimeError:
        traceback.print_exc()
    written = capsys.readouterr()
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == CANARY
    assert CANARY not in written.out + written.err
    assert "cannot sign with '***'" in written.err
