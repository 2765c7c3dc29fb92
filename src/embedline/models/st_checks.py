"""Checks of the modules and the similarity of a sentence-transformers folder."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from embedline.errors import InputError
from embedline.models.log_once import info_once
from embedline.models.model_files import read_json
from embedline.models.modeling_embedline import EmbedlineConfig
from embedline.models.st_modules import MODULES, StModule, read_modules

_log = logging.getLogger(__name__)
_KINDS = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize")
# Their order, each kind followed by ";". Without a Pooling, the pooling is stated or the model's own.
_ORDER = re.compile(r"Transformer;(Pooling;)?(Dense;)*(LayerNorm;)?(Normalize;)*")
# Similarities that rank vectors of length 1 as the cosine does; manhattan does not.
_LIKE_COSINE = {"dot", "euclidean"}


def require_supported(folder: Path) -> None:
    """Refuse modules, their order or a similarity that Embedline does not have; pass without modules.json.

    Raises:
        InputError: naming the module, the order or the similarity.
    """
    modules = read_modules(folder)
    _require_order(modules, folder)
    _require_cosine(modules, folder)


def _require_order(modules: tuple[StModule, ...], folder: Path) -> None:
    """Refuse modules that Embedline does not have, or in another order than its own.

    Raises:
        InputError: naming the module, or the order.
    """
    kinds = [module.kind for module in modules]
    unsupported = next((kind for kind in kinds if kind not in _KINDS), None)
    if unsupported:
        raise InputError(
            f"has a module that Embedline does not have: {unsupported}.",
            where=str(folder / MODULES),
            fix=f"Embedline loads {', '.join(_KINDS)}.",
        )
    if modules and not _ORDER.fullmatch("".join(f"{kind};" for kind in kinds)):
        raise InputError(
            f"has its modules in the order {', '.join(kinds)}.",
            where=str(folder / MODULES),
            fix=f"Embedline applies {', '.join(_KINDS)}, in this order; Dense may be there several times.",
        )


def _require_cosine(modules: tuple[StModule, ...], folder: Path) -> None:
    """Refuse a similarity that ranks texts otherwise than the cosine, the only one that Embedline computes.

    Vectors that the folder leaves at their own length are scaled to length 1, which is logged.

    Raises:
        InputError: naming the similarity.
    """
    file = folder / "config_sentence_transformers.json"
    similarity = read_json(file).get("similarity_fn_name") or "cosine"
    # `EmbedlineModel` normalises by itself.
    own = read_json(folder / "config.json").get("model_type") == EmbedlineConfig.model_type
    normalized = own or (bool(modules) and modules[-1].kind == "Normalize")
    if similarity != "cosine" and not (normalized and similarity in _LIKE_COSINE):
        raise InputError(
            f"compares vectors by {similarity}{'' if normalized else ' at their own length'}, "
            "and Embedline by cosine: it would rank texts otherwise than this model.",
            where=f"{file}: similarity_fn_name",
            fix="To train or evaluate it by cosine all the same, set cosine there, in a copy of the folder.",
        )
    if modules and not normalized:
        info_once(_log, f"{folder}: has no Normalize module; its vectors are scaled to length 1.")
