"""Run by test_real_loaders.py with a Python that has inferna: what stable-diffusion.cpp says of a
file without weights.

python sdcpp.py FILE; its log goes to stdout. Making the context fails in the end: no VAE is given.
"""

from __future__ import annotations

import sys


def main(path: str) -> None:
    from inferna.sd import SDContext, SDContextParams, set_log_callback

    set_log_callback(lambda level, text: print(text.rstrip(), flush=True))
    SDContext(SDContextParams(diffusion_model_path=path, n_threads=1))


if __name__ == "__main__":
    main(sys.argv[1])
