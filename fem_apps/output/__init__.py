"""What a run writes: fields, history, checkpoint, summary, pictures."""
