"""Knowledge distillation: teachers, their stored predictions, and the losses on them.

Conventions: outputs of a teacher are (batch, output) or (clip, output); NaN where there is no prediction.
"""
