"""The command line: each sub-command is one call of the public interface.

Conventions: results go to standard output, everything else to standard error. Exit code 0: all went well;
1: some files could not be processed; 2: the command was wrong, or nothing could be done. An error is one
line, never a traceback.
"""

# ruff: noqa: F401, I001 - each module registers its commands, in the order of --help
from earmark.cli import tag, listen, clips, embed, similar, serve
from earmark.cli import fit, suggest
from earmark.cli import models, pull
from earmark.cli import train, evaluate, probe, calibrate, teach, pack, bench, report, complexity
from earmark.cli import export
from earmark.cli.program import app, main

__all__ = ["app", "main"]
