"""Training objectives, one file each: functions or modules of tensors, with paper and equation."""
