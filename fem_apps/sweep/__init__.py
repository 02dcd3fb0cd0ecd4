"""Many cases: which ones (`plan`), their `record`, running them (`run`), their `table`."""
