"""The run's configuration: schema, presets, overrides, and each step's own part of it."""
