"""Many cases: which ones (`plan`), their record (`record`), running them (`run`), tables (`table`)."""
