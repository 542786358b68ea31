"""Memory that stays with a process: the second map of a size costs no pages."""

import subprocess
import sys

import pytest

MEASURE = """
import ctypes, resource, sys
from earmark.training.runtime.freed_memory import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(3)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
    ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
)
def fill():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    map = libc.malloc(64 << 20)
    ctypes.memset(map, 1, 64 << 20)
    libc.free(map)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
fill()
print(fill())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told to keep memory")
def test_a_map_that_was_freed_comes_back_without_new_pages():
    faults = {}
    for how in ("given back", "kept"):
        found = subprocess.run(
            [sys.executable, "-c", MEASURE, how], capture_output=True, text=True, check=False
        )
        if found.returncode == 3:
            pytest.skip("this system's allocator is not glibc's")
        faults[how] = int(found.stdout)
    assert faults["kept"] < 10 < 30 < faults["given back"]
