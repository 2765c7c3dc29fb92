"""Files in another encoding than UTF-8 are named as such; one damaged row is no other encoding."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from embedline.config.load import load_config
from embedline.data.passages import read_passages
from embedline.data.retrieval_files import load_retrieval
from embedline.data.sources import read_source
from embedline.encoding import decode_text, likely_encoding, wide_encoding
from embedline.errors import InputError
from embedline.importers.flagembedding.shell_script import read_command

RUSSIAN = "Как настроить резервное копирование на сервере?"
ROWS = {
    "a.jsonl": f'{{"query": "plain", "pos": "plain"}}\n{{"query": "{RUSSIAN}", "pos": "ответ"}}\n',
    "a.json": f'[{{"query": "plain", "pos": "plain"}},\n{{"query": "{RUSSIAN}", "pos": "ответ"}}]\n',
    "a.csv": f"query,pos\n{RUSSIAN},ответ\n",
    "a.tsv": f"query\tpos\n{RUSSIAN}\tответ\n",
    "header.csv": f"вопрос,ответ\n{RUSSIAN},да\n",
    "texts/a.md": f"# Title\n\n{RUSSIAN}\n",
}


def refusal(root: Path, name: str, encoding: str) -> tuple[Path, InputError]:
    """Write one of ROWS in another encoding, and read it as a source."""
    path = root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(ROWS[name].encode(encoding))
    with pytest.raises(InputError) as refused:
        list(read_source(name.partition("/")[0], root, texts=True))
    return path, refused.value


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "cp866", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ROWS)
def test_a_source_in_another_encoding_is_refused_with_line_and_command(
    tmp_path: Path, name: str, encoding: str
) -> None:
    path, refused = refusal(tmp_path, name, encoding)
    name_of_codec = {"utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE"}.get(encoding, encoding.upper())
    lines = ROWS[name].split("\n")
    first = 1 if "16" in encoding else next(n for n, line in enumerate(lines, 1) if not line.isascii())
    assert f"{path}:{first}: is not UTF-8: it seems to be {name_of_codec}." in str(refused)
    assert f"iconv -f {name_of_codec} -t UTF-8 {path.name}" in refused.fix


@pytest.mark.parametrize("encoding", ["utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("name", ROWS)
def test_a_source_in_utf32_is_refused_with_and_without_its_mark(
    tmp_path: Path, name: str, encoding: str
) -> None:
    path, refused = refusal(tmp_path, name, encoding)
    assert re.search(r":1: is not UTF-8: it seems to be UTF-32(LE|BE)?\. ", str(refused))
    codec = refused.what.removesuffix(".").rpartition(" ")[2]
    assert path.read_bytes().decode(codec) == ROWS[name]


def test_a_text_with_a_zero_byte_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\0\nthree and many more words\n" * 9)
    with pytest.raises(InputError, match=r"a\.txt:2: holds a zero byte"):
        read_passages(tmp_path / "a.txt")
    (line,) = read_source("a.txt", tmp_path, texts=True)
    assert (line.line, line.reason) == (2, "a zero byte, as in a damaged file")


def test_passages_and_judgements_may_end_their_lines_with_carriage_returns(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\rtwo\r")
    assert [passage.text for passage in read_passages(tmp_path / "a.txt")] == ["one", "two"]
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "text": "t"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "t"}\n')
    (tmp_path / "qrels.tsv").write_bytes(b"query-id\tcorpus-id\tscore\rq\td\t1\r")
    assert load_retrieval(tmp_path, "test").qrels == {"q": {"d": 1}}


def test_every_other_reader_of_texts_names_the_encoding(tmp_path: Path) -> None:
    held_out = tmp_path / "set"
    held_out.mkdir()
    (held_out / "corpus.jsonl").write_text('{"_id": "d", "text": "t"}\n')
    (held_out / "queries.jsonl").write_text('{"_id": "q", "text": "t"}\n')
    (held_out / "qrels.tsv").write_text("вопрос\tответ\t1\n", encoding="cp1251")
    (tmp_path / "a.txt").write_text(RUSSIAN, encoding="cp1251")
    (tmp_path / "preset.yaml").write_text(f"description: {RUSSIAN}\n", encoding="cp1251")
    (tmp_path / "train.sh").write_text(f"# {RUSSIAN}\n", encoding="cp1251")
    readers = [
        lambda: load_retrieval(held_out, "test"),
        lambda: read_passages(tmp_path / "a.txt"),
        lambda: load_config(str(tmp_path / "preset.yaml"), []),
        lambda: read_command(str(tmp_path / "train.sh")),
        lambda: decode_text(RUSSIAN.encode("cp1251"), "standard input"),
    ]
    for read in readers:
        with pytest.raises(InputError, match=r":1: is not UTF-8: it seems to be CP1251\. .*iconv -f CP1251"):
            read()


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
def test_one_row_in_another_encoding_costs_itself_only(tmp_path: Path, name: str) -> None:
    good = ROWS[name].encode()
    bad = good.splitlines(keepends=True)[-1].decode().encode("cp1251")
    (tmp_path / name).write_bytes(good + good.splitlines(keepends=True)[-1] + bad)
    lines = list(read_source(name, tmp_path))
    assert [line.values is None for line in lines][-2:] == [False, True]
    assert "invalid UTF-8" in lines[-1].reason


def test_the_encoding_is_that_of_known_text_and_else_unknown() -> None:
    for text in ("El niño comió una manzana en el jardín", "Der Bär läuft über die Straße"):
        assert likely_encoding(text.encode("cp1252")) == "CP1252"
    assert likely_encoding(RUSSIAN.encode()[1:]) is None  # UTF-8 that was cut
    assert likely_encoding("这是一个问题".encode("gb18030")) is None
    assert wide_encoding(b"a\0b and a few more words of a damaged file, which is UTF-8 otherwise") is None
    assert decode_text("\ufeffтекст".encode(), "x") == "текст"
