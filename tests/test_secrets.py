"""Secrets: the config holds only references, and no message repeats a possible secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from embedline.artifacts.record import StepRecord
from embedline.artifacts.workspace import Workspace
from embedline.cli.app import app
from embedline.config.load import load_config
from embedline.config.registry import TrackingConfig
from embedline.config.secrets import refuse_password, resolve_secret
from embedline.errors import InputError
from embedline.execution.recorded import recorded
from embedline.redaction import without_passwords
from embedline.registry.tracking_target import read_tracking, tracking_target, write_tracking

CANARY = "hunter2-canary"


@pytest.fixture
def preset(tmp_path: Path) -> str:
    path = tmp_path / "preset.yaml"
    path.write_text("name: tiny\ndata:\n  sources: [{path: pairs.jsonl}]\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("value", ["env:MLFLOW_TOKEN", "secret:mlflow/token", '""'])
def test_reference_is_accepted(preset: str, value: str) -> None:
    assert load_config(preset, [f"tracking.token={value}"]).tracking.token == value.strip('"')


@pytest.mark.parametrize(
    "value",
    [
        CANARY,
        "12345678",
        "env:",
        "env: A",
        "env:A-B",
        "secret:mlflow",
        "secret:../x/token",
        "secret:m/..",
        "[a]",
    ],
)
def test_a_literal_is_refused_with_its_key_and_not_repeated(preset: str, value: str) -> None:
    with pytest.raises(InputError, match=r"tracking\.token: takes env:NAME or secret:NAME/KEY") as refused:
        load_config(preset, [f"tracking.token={value}"])
    if len(value) > 6:
        assert value not in str(refused.value)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        (f"tracking.uri=https://me:{CANARY}@mlflow.example.org", "tracking.uri"),
        (f"tracking.uri=postgresql://me:{CANARY}@db/mlflow", "tracking.uri"),
        (f"tracking.uri=https://{CANARY}@mlflow.example.org", "tracking.uri"),
        (f"tracking.uri=postgresql://db/mlflow?user=me&password={CANARY}", "tracking.uri"),
        (
            f"data.sources.0.path=https://s3.example.org/x.jsonl?X-Amz-Signature={CANARY}",
            "data.sources.0.path",
        ),
        (f"data.sources.0.path=https://me:{CANARY}@data.example.org/x.jsonl", "data.sources.0.path"),
        (f"description=from ftp://me:{CANARY}@files", "description"),
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(preset: str, override: str, key: str) -> None:
    with pytest.raises(InputError, match=f"{key}: holds a password") as refused:
        load_config(preset, [override])
    assert CANARY not in str(refused.value)


def test_password_in_a_value_of_the_wrong_type_is_masked(preset: str) -> None:
    with pytest.raises(InputError, match=r"supervised\.steps") as refused:
        load_config(preset, [f"supervised.steps=https://me:{CANARY}@host"])
    assert CANARY not in str(refused.value)


def test_password_in_mlflow_tracking_uri_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://me:{CANARY}@mlflow.example.org")
    with pytest.raises(
        InputError, match=r"MLFLOW_TRACKING_URI: https://me:\*\*\*@.*MLFLOW_TRACKING_PASSWORD"
    ) as no:
        tracking_target(TrackingConfig(), Workspace(tmp_path))
    assert CANARY not in str(no.value)


def test_a_token_reaches_mlflow_and_not_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGING", CANARY)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "")
    config = TrackingConfig(uri="http://127.0.0.1:9", token="env:STAGING")
    write_tracking(tmp_path, tracking_target(config, Workspace(tmp_path)))
    from mlflow.utils.credentials import get_default_host_creds

    assert get_default_host_creds("http://127.0.0.1:9").token == CANARY
    assert CANARY not in (tmp_path / "tracking.json").read_text(encoding="utf-8")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "")  # another process of the run
    found = read_tracking(tmp_path)
    assert found is not None
    found.mirror()
    assert get_default_host_creds("http://127.0.0.1:9").token == CANARY
    monkeypatch.delenv("STAGING")
    with pytest.raises(InputError, match=r"tracking\.token: the environment has no STAGING"):
        found.mirror()


def test_a_mounted_secret_is_read_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "token").write_text(f"{CANARY}\n", encoding="utf-8")
    monkeypatch.setenv("EMBEDLINE_SECRETS", str(tmp_path))
    assert resolve_secret("secret:mlflow/token", where="--secret") == CANARY
    with pytest.raises(InputError, match=r"--secret: there is no .*mlflow/other"):
        resolve_secret("secret:mlflow/other", where="--secret")
    with pytest.raises(InputError, match="--secret: takes env:NAME") as refused:
        resolve_secret(CANARY, where="--secret")
    assert CANARY not in str(refused.value)


def test_unexpected_error_has_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Drivers name an unreachable address in records, on the terminal and in doctor's list."""
    from embedline.cli import doctor
    from embedline.cli.shared import command

    def breaks(*_: object, **__: object) -> str:
        raise RuntimeError(f"could not connect to postgresql://me:{CANARY}@db/mlflow?token={CANARY}")

    record = StepRecord(step="clean", status="running", started_at=0.0)
    with pytest.raises(RuntimeError), recorded(tmp_path, record, tmp_path):
        breaks()
    with pytest.raises(typer.Exit):
        command(lambda **_: int(breaks()))()
    monkeypatch.setattr(doctor, "_tracker", breaks)
    for name in ("MLFLOW_TRACKING_TOKEN", "KFP_TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, CANARY)
    assert CliRunner().invoke(app, ["doctor", "--work", str(tmp_path)]).exit_code == 1
    told = CliRunner().invoke(app, ["doctor", "--json", "--work", str(tmp_path)]).output
    said = capsys.readouterr()
    written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.json"))
    for text in (told, said.err, written):
        assert "could not connect to postgresql://me:***@db/mlflow?token=***" in text
    assert CANARY not in told + said.out + said.err + written


_NAME = st.text("abcXYZ019._~-", min_size=1, max_size=12)
_PASSWORD = st.text("abcXYZ019.:@!$&'()*+,;=~%-", min_size=4, max_size=20)


@given(st.sampled_from(["http", "https", "postgresql", "mysql+pymysql", "s3"]), _NAME, _PASSWORD, _NAME)
def test_passwords_are_masked(scheme: str, user: str, password: str, host: str) -> None:
    text = f"cannot reach {scheme}://{user}:{password}@{host}/path: refused"
    blotted = without_passwords(text)
    assert blotted == f"cannot reach {scheme}://{user}:***@{host}/path: refused"
    assert without_passwords(blotted) == blotted
    with pytest.raises(InputError):
        refuse_password(f"{scheme}://{user}:{password}@{host}", where="x")


@given(st.sampled_from(["password", "token", "access_token", "sslpassword"]), _NAME, _NAME)
def test_passwords_in_a_query_are_masked(key: str, first: str, second: str) -> None:
    text = f"no answer from postgresql://db/mlflow?user=me&{key}={first}&b=c&PASSWORD={second}#end refused"
    blotted = without_passwords(text)
    assert blotted == f"no answer from postgresql://db/mlflow?user=me&{key}=***&b=c&PASSWORD=*** refused"
    assert without_passwords(blotted) == blotted


def test_query_without_a_password_is_unchanged() -> None:
    for text in (
        "https://h/apis?page_token=abc&tokens=5",
        "sqlite:///x.db?mode=ro",
        "https://h/?a=b#token=x",
    ):
        assert without_passwords(text) == text


@given(st.sampled_from(["http", "sqlite", "s3", "file"]), _NAME, st.text("ab/@:.", max_size=20))
def test_address_without_a_password_is_unchanged(scheme: str, host: str, path: str) -> None:
    text = json.dumps(f"{scheme}://{host}:5000/{path}")
    assert without_passwords(text) == text
