"""FlagEmbedding's fine-tuning commands as presets: `preset_from` is the only function to call from outside.

- `shell_script.py` finds the command in a shell script or a command line, and its flags.
- `flags.py` joins the tables of flags (`embedder_flags.py`: FlagEmbedding's own; `trainer_flags.py`:
  transformers'), reads a flag's words (`readers.py`) and turns values into those of preset keys
  (`writers.py`).
- `preset.py` puts both together and adds what FlagEmbedding does whatever its flags are.

`page.py` prints the tables as the documentation page.
"""

from __future__ import annotations

from embedline.importers.flagembedding.preset import preset_from

__all__ = ["preset_from"]
