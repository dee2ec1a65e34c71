"""One thread for tiny models, here and in every child process: on them a second one costs more than it brings."""

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
