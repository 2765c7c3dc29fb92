"""Search for a FlagEmbedding command in a command line or a shell script, which is read and never run."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field

from embedline.encoding import read_text
from embedline.errors import InputError, os_reason
from embedline.quoting import home_expanded

_MODULE = re.compile(r"FlagEmbedding\.[\w.]+")
_ASSIGNED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_REDIRECTED = re.compile(r"\d*>>?(.*)")  # not <: prompts begin with it
_FLAG = re.compile(r"--([A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)
# Flags of torchrun, accelerate and deepspeed: processes of a machine, of all machines, and machines.
LAUNCHERS = ("nproc_per_node", "num_gpus", "num_processes", "nnodes", "num_machines", "num_nodes")
_ENDS = frozenset(";&|\n")


@dataclass
class Command:
    """One command: its flags and the words that follow each; of a repeated flag the last one counts.

    Args:
        where: the script or option that it comes from, for messages.
        module: the Python module that it runs; empty when the command does not name it.
        processes: of each machine that train together.
        machines: that train together.
        launcher: the launcher's flags that set these two, as they are written.
        flags: the words after each flag, by flag name.
    """

    where: str
    module: str = ""
    processes: int = 1
    machines: int = 1
    launcher: dict[str, str] = field(default_factory=dict)
    flags: dict[str, list[str]] = field(default_factory=dict)

    @property
    def devices(self) -> int:
        """Return the number of all processes that train together."""
        return self.processes * self.machines


def read_command(command_line: str) -> Command:
    """Find the fine-tuning command in a script (given by its path) or in a command line.

    Raises:
        InputError: no such file, no command in it, or a command that does not train an embedding model.
    """
    text, where = _text_of(command_line)
    commands = _commands(text, where)
    for words in commands:
        module = next((i for i, word in enumerate(words) if _MODULE.fullmatch(word)), None)
        if module is not None:
            return _command(words[:module], words[module], words[module + 1 :], where)
    for words in commands:
        first = next((i for i, word in enumerate(words) if _begins_flags(words, i)), None)
        if first is not None:
            return _command(words[:first], "", words[first:], where)
    raise InputError(
        "holds no command of FlagEmbedding.",
        where=where,
        fix="Give its flags (--model_name_or_path …), or a script that runs `-m FlagEmbedding.…`.",
    )


def _begins_flags(words: list[str], index: int) -> bool:
    """Return whether a script's own flags begin here: at the start of a command, or after its file."""
    return _FLAG.fullmatch(words[index]) is not None and (index == 0 or words[index - 1].endswith(".py"))


def _text_of(command_line: str) -> tuple[str, str]:
    """Return the text to search, and its name for messages."""
    words = command_line.split()
    if len(words) != 1 or words[0].startswith("--"):
        return re.sub(r"\\?\n", " ", command_line), "--from-flagembedding"  # one command on several lines
    try:
        return read_text(home_expanded(command_line.strip())), command_line
    except OSError as error:
        raise InputError(
            f"cannot be read ({os_reason(error)}).", where=command_line, fix="Give a script, or flags."
        ) from error


def _commands(text: str, where: str) -> list[list[str]]:
    """Split a script into its simple commands, in order, with the script's own variables replaced."""
    text = re.sub(r"(?m)^[ \t]*#.*$", "", text.replace("\r\n", "\n"))
    lexer = shlex.shlex(re.sub(r"\\\n", " ", text), posix=True, punctuation_chars="".join(sorted(_ENDS)))
    lexer.whitespace, lexer.commenters, lexer.whitespace_split = " \t", "", True
    variables = {"HOME": os.path.expanduser("~")}
    commands: list[list[str]] = [[]]
    try:
        for token in lexer:
            if set(token) <= _ENDS and token:
                commands.append([])
            elif (assigned := _ASSIGNED.fullmatch(token)) and not commands[-1]:
                variables[assigned[1]] = _expanded(assigned[2], variables)
            elif assigned and commands[-1] in (["export"], ["local"]):
                variables[assigned[1]] = _expanded(assigned[2], variables)
                commands.append([])
            else:
                words = _expanded(token, variables)
                # A variable that is a word of its own may hold several words.
                commands[-1] += shlex.split(words) if _VARIABLE.fullmatch(token) else [words]
    except ValueError as error:
        raise InputError(f"cannot be read as a command ({error}).".lower(), where=where) from error
    return [_plain(words) for words in commands if words]


def _expanded(token: str, variables: dict[str, str]) -> str:
    """Replace the variables of a token; an unknown one stays as it is."""
    return _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], match[0]), token)


def _plain(words: list[str]) -> list[str]:
    """Remove redirections, and a comment at the end."""
    kept: list[str] = []
    target = False
    for word in words:
        if word.startswith("#"):
            break
        redirected = _REDIRECTED.fullmatch(word)
        if not target and not redirected:
            kept.append(word)
        target = redirected is not None and not redirected[1]
    return kept


def _command(launcher: list[str], module: str, words: list[str], where: str) -> Command:
    """Read a command from the words before, at and after its module."""
    if "rerank" in module.lower():
        raise InputError(
            f"{module} trains a reranker.", where=where, fix="Embedline trains embedding models."
        )
    given = {name: words[0] for name, words in _flags(launcher, where, strict=False).items() if words}
    machines = _count(given, ("nnodes", "num_machines", "num_nodes"))  # torchrun, accelerate, deepspeed
    processes = _count(given, ("nproc_per_node", "num_gpus"))
    if processes == 1:
        processes = max(1, _count(given, ("num_processes",)) // machines)  # of all machines
    command = Command(where, module, processes, machines)
    command.launcher = {name: given[name] for name in LAUNCHERS if name in given}
    command.flags = _flags(words, where, strict=True)
    return command


def _flags(words: list[str], where: str, *, strict: bool) -> dict[str, list[str]]:
    """Collect the words after each flag; `strict` refuses words before the first flag."""
    flags: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if match := _FLAG.fullmatch(word):
            name = match[1].replace("-", "_")
            flags[name] = [] if match[2] is None else [match[2]]
        elif name:
            flags[name].append(word)
        elif strict:
            raise InputError(f"{word!r} stands where a flag should.", where=where)
    return flags


def _count(flags: dict[str, str], names: tuple[str, ...]) -> int:
    """Read the number after the first of the flags that there is; 1 where it is none."""
    value = next((flags[name] for name in names if name in flags), "")
    return int(value) if value.isdigit() and int(value) else 1
