"""Folders with a manifest, the content-addressed store, the run record and the tracker's spool."""
