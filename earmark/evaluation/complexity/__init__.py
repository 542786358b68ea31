"""Cost of a model: parameters, multiply-accumulate operations, peak memory, receptive field, and budgets.

Conventions: costs are computed for one clip, from the operations that one forward pass causes. kB and MB are
powers of 1000. This room needs PyTorch.
"""
