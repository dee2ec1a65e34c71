"""One thread for tiny models, here and in every child process: on them a second one costs more than
it brings. And the same random examples on every machine: a property that fails must fail where it
can be mended."""

import os

from hypothesis import settings

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

settings.register_profile("steady", derandomize=True, database=None, deadline=None)
settings.load_profile("steady")
