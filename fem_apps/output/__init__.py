"""What a run leaves behind: fields for ParaView, checkpoints, history, summary and pictures.

Only `fields`, `checkpoint` and `frames` need DOLFINx; pictures are drawn without it.
"""
