"""Log lines that appear once a process, however often their code runs."""

from __future__ import annotations

import logging
from functools import cache


@cache
def info_once(logger: logging.Logger, message: str) -> None:
    """Log `message` at level INFO, the first time only."""
    logger.info(message)


@cache
def warn_once(logger: logging.Logger, message: str) -> None:
    """Log `message` at level WARNING, the first time only."""
    logger.warning(message)
