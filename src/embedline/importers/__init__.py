"""Presets made from the settings of other training tools: one package a tool.

A package `importers/<tool>/` exports one function, `preset_from(command, name)`, which returns an
`ImportedPreset`. What all tools need is in `importers/preset.py`: that type, and the YAML text of a preset
in which a comment beside every key names the tool's setting that it comes from. To add a tool, write its
package beside `flagembedding/` and give `embedline init` an option for it (`cli/runs.py`).
"""
