"""FlagEmbedding: its flags and shell scripts as a preset."""
