"""Settings of other tools, read as presets."""
