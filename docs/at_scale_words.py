"""The words and commands of docs/at-scale.md."""

from __future__ import annotations

HEAD = """# Large models on one card, and on eight

Written by `python docs/at_scale.py` from `docs/at-scale.json`; a test holds it current. **Nothing here has run on a GPU.** The gigabytes are dry runs: the loops
themselves, on models of full size without weights ([how](distillation.md#dry-run-for-other-devices)), with 1.5 GiB for CUDA. The hours are the operations that these loops
make at 40 % of the card's bfloat16 peak, which is an assumption; copies between host and card, between cards, and from the disk are not counted.

| card | taken for | peak |
|---|---|---|
| 24 GB | RTX 4090 | 165 TFLOPS |
| 48 GB | RTX A6000 | 155 |
| 80 GB | A100 | 312; an H100 has 989 |

What is counted:

- **profile**: metric `prediction`, edits drop and merge, 20 prompts, 8 timesteps, one sample at a time (`--batch 1`), sampling of the prompts included, at the pipeline's own size and
  steps. A larger batch takes more memory and hardly less time.
- **plan and build** take no card: `build` holds a few tensors at a time in the host's memory and takes the time of reading the teacher and writing the student once.
- **one-card**: half of the blocks, the recipe's 1000 steps of 8 samples for each pair of blocks; time is in proportion to `--steps`. Counted is a plan of pairs (blocks 0 and 1, 2 and 3, ..); a
  plan from your map may have longer spans.
- **end to end**: recipe `one-card-full` on one card (2000 steps of batch 8, moments on the host), `amber-10b` split over eight by FSDP2 (6000 steps of batch 64).
- **The data** are made before, and on the same card: while prompts are encoded, text encoders and teacher are both there. What fits must fit then, too (weights, counted from the configs).
- 1024 x 1024 pixels and 256 text tokens; Wan 81 frames of 832 x 480, in the dry run as 21 latent frames of 39 x 39 tokens, 3 % less than it has.

## What fits
"""

CARD_TITLES = {
    "1x24GB": "One card of 24 GB",
    "1x48GB": "One card of 48 GB",
    "1x80GB": "One card of 80 GB",
    "8x80GB": "Eight cards of 80 GB",
}
NOT_ALONE = "Take the next larger card, or a smaller `--size` and ask `--estimate` again (below)."

INSTALL = """
python3 -m venv env && . env/bin/activate
pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cu130
pip install 'dit_workbench-0.1.0-py3-none-any.whl[gpu]'   # the wheel; in a clone: pip install '.[gpu]'
hf auth login                                              # FLUX.1 and SD3.5: accept their licence on the Hub first
"""
STEPS = """
{install}
workbench profile $MODEL -o map.json --batch 1 $SCAN{processes}
workbench plan $MODEL --recipe one-card --sensitivity map.json -o plan.yaml
cat > distill.yaml <<END
{spec}
END
workbench distill plan.yaml --spec distill.yaml --estimate --for {card} $TEACHER   # no GPU needed
workbench build plan.yaml -o student
workbench distill student -o distilled --spec distill.yaml --data $DATA $TEACHER{processes}
workbench compare $MODEL distilled -o comparison --placement auto
workbench quantize distilled --to int4 -o distilled-int4
workbench release distilled -o release --comparison comparison
"""


def commands(card: str, spec: str) -> str:
    """All steps on one machine, with the variables that are set before; spec: of `distill`."""
    processes = "" if card.startswith("1x") else f" --processes {card[0]}"
    return STEPS.format(install=INSTALL.strip(), card=card, processes=processes, spec=spec.strip())


END = """## Notes to the commands

- `pictures` is a folder of pictures with captions (a `.txt` of the same name beside each, or `metadata.jsonl`). `prompts.txt` has one prompt per line, of which
  the teacher first samples latents: the only way for Wan, a second one for the others. Every run goes on where it stopped with `--resume`.
- `distilled-int4` is for yourself, loaded by diffusers with torchao; `release` holds the student in bf16 with its model card. `--push OWNER/NAME --yes` uploads it.
- `compare` chooses how it holds each model by the memory that is free.
- The host: with `--placement streamed` the teacher's blocks wait in pinned memory if twice their size is free, else they are read from the disk each time. The gigabytes of the host in the
  table are those of the student and the optimizer, beside that.
- Another model, size or card: `workbench distill plan.yaml --recipe one-card --estimate --for 1xL4 --size 768`.
  What it says about parts: so many turns a card's share of a batch takes. `distill` takes the turns that its spec has: `batch` samples at once on all cards, `accumulate` times.
- Where end to end does not fit, the smallest card of `--for` that the same bytes fit is an H200 of 141 GB: one for Qwen-Image and Wan with the teacher streamed, eight for both split.

## What is not known

- Whether the estimates hold on a GPU. On a CPU dry runs were within 2 % of what torch's allocator then held (`benchmarks/dry_run.py`).
- How long streaming takes. A step reads all blocks up to the trained pair once: at most 41 GB for Qwen-Image, some two seconds over PCIe 4.0 x16 where the host has them.
- How good such a student is. The recipes were trained on the small bundled teachers only; half of a large model's blocks may need far more than 1000 steps of 8 samples.
- `compare` and `quantize` have no dry run. `compare` holds one model at a time beside its VAE, whose decoder at 1024 pixels takes several GB; lower `--size` if it does not fit.
- `profile` has no `--estimate` yet: its figures here are made by `docs/at_scale.py`, with the scan's own forwards of the unedited model and of the edits of the first and last blocks; between
  these an edit's work is taken to shrink evenly. A real scan prints what it will take after its first forward.
- Training end to end under FSDP2 keeps more than it should, by the dry run: 62 GB of Qwen-Image's 96 GB a card are gathered weights and their casts to bfloat16, which should be let go block by
  block. So the sharded figures are those of the loop as it is, not of what eight cards can do.
"""
