"""The work on a recorded run: its record, its end, its repetition and its retention."""
