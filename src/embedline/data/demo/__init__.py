"""The project's own demo data: a small bilingual world of product support, made from a seed.

Things and traits (`things`), what is asked about them (`attribute*`), the world of facts (`world`), how it is
put into words (`grammar`, `phrases`, `narrator`), what is asked in evaluation (`evaluation`), what is planted
for cleaning to find (`noise`), and the files (`writer`). Standard library only.

The sets are built so that meaning decides: a question names its entity and its attribute mostly by other
words than the passage that answers it, and the synonyms are to be learnt from the rest of the data.
"""

from __future__ import annotations

from embedline.data.demo.writer import write_demo

__all__ = ["write_demo"]
