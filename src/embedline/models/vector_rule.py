"""How a third-party folder makes one vector of a text: its pooling, and its mask where it is a decoder.

The user's statement comes first, then modules.json. A folder without it states nothing: an encoder is pooled
by the mean, as sentence-transformers does with a warning; of a decoder neither can be guessed (e5-mistral is
causal and takes the last token, LLM2Vec is bidirectional and takes the mean).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PretrainedConfig

from embedline.errors import InputError
from embedline.models.bidirectional import is_decoder_family
from embedline.models.folder_checks import is_native
from embedline.models.modeling_embedline import EmbedlineConfig
from embedline.models.pooling import POOLING
from embedline.models.st_modules import MODULES, StModule, find_module, module_config, read_modules
from embedline.models.stated import Stated
from embedline.models.third_party import POOLING_MODES

_STATE = (
    "State it: --pooling and --causal or --bidirectional (evaluate, embed, search), teacher.pooling and "
    "teacher.causal, model.base_pooling and model.base_causal; or save the folder with "
    "sentence-transformers, which writes it into the files."
)


@dataclass(frozen=True)
class VectorRule:
    """How a folder's vectors are made.

    Args:
        pooling: a name in POOLING.
        causal: the mask that the backbone is to have; None: the one that it is loaded with.
        assumed: what neither the folder nor the user states, as one line; empty when all is stated.
    """

    pooling: str
    causal: bool | None = None
    assumed: str = ""


def read_vector_rule(
    folder: Path, config: PretrainedConfig, stated: Stated, *, default: str | None = None, as_base: bool
) -> VectorRule:
    """Find out how a third-party folder makes its vectors.

    Args:
        config: of its backbone.
        default: the pooling of a folder without modules.json that is known otherwise (BGE-M3's heads).
        as_base: the run decides pooling and mask; what is unknown is assumed, not refused.

    Raises:
        InputError: a pooling that Embedline does not have, no Pooling module, a causal encoder, or a decoder
            or classifier whose files do not say how its vectors are made.
    """
    decoder = _may_be_causal(config)
    if stated.causal and not decoder:
        raise InputError(f"is an encoder ({config.model_type}): it has no causal mask.", where=str(folder))
    modules = read_modules(folder)
    if modules:
        return VectorRule(stated.pooling or _module_pooling(folder, modules), stated.causal)
    pooling, causal = stated.pooling or default, stated.causal
    if decoder and causal is None and _says_bidirectional(config):
        causal = False
    unknown = [] if pooling else ["the pooling"]
    unknown += ["the mask"] if decoder and causal is None else []
    if not unknown:
        return VectorRule(str(pooling), causal)
    what = f"has no {MODULES}, so that its files do not say {' and '.join(unknown)} of its vectors"
    if not as_base:
        _refuse_unknown(folder, config, decoder, what)
    rule = VectorRule(pooling or "mean", False if decoder and causal is None else causal)
    taken = f"{rule.pooling} pooling" + (" and a bidirectional mask" if "the mask" in unknown else "")
    return VectorRule(rule.pooling, rule.causal, f"{folder} {what}: {taken} is assumed. {_STATE}")


def _refuse_unknown(folder: Path, config: PretrainedConfig, decoder: bool, what: str) -> None:
    architecture = next(iter(getattr(config, "architectures", None) or []), "")
    if decoder:
        raise InputError(f"{what}, and a decoder's cannot be guessed.", where=str(folder), fix=_STATE)
    if architecture.endswith("ForSequenceClassification"):
        raise InputError(
            f"is a classifier or reranker ({architecture}), not an embedding model.",
            where=str(folder),
            fix="To pool its states all the same, state the pooling (--pooling, teacher.pooling).",
        )


def _may_be_causal(config: PretrainedConfig) -> bool:
    """Return whether it is a decoder, or brings its own code that names no masked-language model."""
    own_heads = getattr(config, "auto_map", None) or {}
    return is_decoder_family(config) or (not is_native(config) and "AutoModelForMaskedLM" not in own_heads)


def _says_bidirectional(config: PretrainedConfig) -> bool:
    bidirectional = getattr(config, "use_bidirectional_attention", None)
    return getattr(config, "is_causal", None) is False or bidirectional in (True, "all")


def _module_pooling(folder: Path, modules: tuple[StModule, ...]) -> str:
    """Read the pooling of the Pooling module, from the folder that modules.json names."""
    module = find_module(modules, "Pooling")
    if module is None:
        if is_own_class(folder, modules):
            return "mean"  # replaced by that of its config
        raise InputError(
            "lists no Pooling module, so that it makes token states and no vector of a text.",
            where=str(folder / MODULES),
            fix="Add the module, or state the pooling (--pooling, teacher.pooling).",
        )
    config = module_config(folder, module)
    modes = config.get("pooling_mode") or [key for key, on in config.items() if key in POOLING_MODES and on]
    listed = [modes] if isinstance(modes, str) else modes or ["mean"]  # sentence-transformers' default
    names = [POOLING_MODES.get(key, key) for key in listed]
    if len(names) != 1 or names[0] not in POOLING or not config.get("include_prompt", True):
        raise InputError(
            f"pools by {' and '.join(names)}, with include_prompt {config.get('include_prompt', True)}.",
            where=str(folder / module.path / "config.json"),
            fix=f"Embedline loads {', '.join(POOLING)}, prompt included.",
        )
    return names[0]


def is_own_class(folder: Path, modules: tuple[StModule, ...]) -> bool:
    """Return whether the Transformer module is an `EmbedlineModel`, which pools by itself."""
    transformer = find_module(modules, "Transformer")
    assert transformer is not None
    values = module_config(folder, transformer)
    return values.get("model_type") == EmbedlineConfig.model_type
