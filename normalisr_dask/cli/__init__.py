"""The command ``normalisr-dask``: commands parse, call and print; what they call lies below.

A command's signature is in ``*_commands.py``, which imports little, so that help comes at once; what it does is in
``*_work.py``, which is imported when the command is called.
"""

from normalisr_dask.cli.app import main

__all__ = ["main"]
