"""The recipe: its tables and their validation.

Conventions: one module per group of tables; ``recipe`` joins them, ``toml`` loads files.
"""
