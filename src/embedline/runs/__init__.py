"""Look back: the record of a run, its end, its repetition and its retention."""
