"""Interfaces of other projects.

Conventions: one module per interface; an optional package is imported where it is used.
"""
