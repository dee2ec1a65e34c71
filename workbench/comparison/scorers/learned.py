"""Scores of trained models, computed by their own packages: a program of one file.

It runs in the environment of the package, not in ours, so it imports nothing of the workbench:

    PYTHON learned.py NAME --weights PATH [--code FOLDER] MANIFEST SCORES
    PYTHON learned.py NAME --check

Nothing is fetched: weights are read from the path given. An error is one line on stderr.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


# --- one function per score: pictures, weights, code -> one number per picture --------------------


def clip_cosines(pictures: list[dict[str, Any]], weights: str) -> tuple[list[float], float]:
    """Cosines of picture and prompt, and the model's factor for logits. weights: a folder of a CLIP
    model of transformers with its processor.
    """
    import torch
    from PIL import Image
    from transformers import CLIPModel, CLIPProcessor

    model = CLIPModel.from_pretrained(weights).eval().to(device())
    processor = CLIPProcessor.from_pretrained(weights)
    cosines = []
    for picture in pictures:
        image = Image.open(picture["file"]).convert("RGB")
        inputs = processor(
            text=[picture["prompt"]],
            images=[image],
            padding="max_length",
            truncation=True,
            max_length=77,
            return_tensors="pt",
        )
        with torch.no_grad():
            outputs = model(**inputs.to(device()))
        pair = torch.nn.functional.cosine_similarity(outputs.image_embeds, outputs.text_embeds)
        cosines.append(float(pair))
    return cosines, float(model.logit_scale.exp())


def clipscore(pictures: list[dict[str, Any]], weights: str, code: str) -> list[float]:
    cosines, _ = clip_cosines(pictures, weights)
    return [2.5 * max(cosine, 0.0) for cosine in cosines]


def pickscore(pictures: list[dict[str, Any]], weights: str, code: str) -> list[float]:
    cosines, factor = clip_cosines(pictures, weights)
    return [factor * cosine for cosine in cosines]


def hpsv2(pictures: list[dict[str, Any]], weights: str, code: str) -> list[float]:
    import torch
    from hpsv2.src.open_clip import create_model_and_transforms, get_tokenizer
    from PIL import Image

    model, _, transform = create_model_and_transforms(
        "ViT-H-14",
        None,
        precision="fp32",
        device=device(),
        light_augmentation=True,
        aug_cfg={},
        output_dict=True,
        with_score_predictor=False,
        with_region_predictor=False,
    )
    model.load_state_dict(torch.load(weights, map_location=device())["state_dict"])
    model = model.eval().to(device())
    tokenizer = get_tokenizer("ViT-H-14")
    scores = []
    for picture in pictures:
        image = transform(Image.open(picture["file"]).convert("RGB")).unsqueeze(0)
        with torch.no_grad():
            outputs = model(image.to(device()), tokenizer([picture["prompt"]]).to(device()))
        scores.append(float((outputs["image_features"] * outputs["text_features"]).sum()))
    return scores


def hpsv3(pictures: list[dict[str, Any]], weights: str, code: str) -> list[float]:
    from hpsv3 import HPSv3RewardInferencer

    folder = Path(weights)
    config = folder / "HPSv3_7B.yaml"
    inferencer = HPSv3RewardInferencer(
        config_path=str(config) if config.is_file() else None,
        checkpoint_path=str(folder / "HPSv3.safetensors"),
        device=device(),
    )
    scores = []
    for picture in pictures:
        rewards = inferencer.reward(prompts=[picture["prompt"]], image_paths=[picture["file"]])
        scores.append(float(rewards[0][0]))  # mean of the predicted normal distribution
    return scores


def imagereward(pictures: list[dict[str, Any]], weights: str, code: str) -> list[float]:
    import ImageReward

    folder = Path(weights)
    model = ImageReward.load(
        str(folder / "ImageReward.pt"),
        device=device(),
        med_config=str(folder / "med_config.json"),
    )
    return [float(model.score(row["prompt"], row["file"])) for row in pictures]


def vqascore(pictures: list[dict[str, Any]], weights: str, code: str) -> list[float]:
    import t2v_metrics

    model = t2v_metrics.VQAScore(model="clip-flant5-xxl", device=device(), cache_dir=weights)
    return [float(model(images=[row["file"]], texts=[row["prompt"]])) for row in pictures]


GENEVAL_KEYS = ("tag", "include", "exclude", "prompt")


def geneval(pictures: list[dict[str, Any]], weights: str, code: str) -> list[float]:
    """GenEval's own program, on its own layout. code: a checkout of djghosh13/geneval."""
    with tempfile.TemporaryDirectory() as name:
        folder, results = Path(name) / "images", Path(name) / "results.jsonl"
        for number, picture in enumerate(pictures):
            place = folder / f"{number:05}" / "samples"
            place.mkdir(parents=True)
            shutil.copy(picture["file"], place / "00000.png")
            about = {key: value for key, value in picture.items() if key in GENEVAL_KEYS}
            (place.parent / "metadata.jsonl").write_text(json.dumps(about))
        program = Path(code) / "evaluation" / "evaluate_images.py"
        command = [sys.executable, str(program), str(folder), "--outfile", str(results)]
        command += ["--model-path", weights]
        subprocess.run(command, check=True, cwd=str(program.parent))
        correct = {}
        for line in results.read_text().splitlines():
            row = json.loads(line)
            correct[int(Path(row["filename"]).parent.parent.name)] = float(row["correct"])
    return [correct[number] for number in range(len(pictures))]


SCORES = {  # name -> its function, and the modules that it imports
    "clipscore": (clipscore, ("torch", "transformers", "PIL")),
    "pickscore": (pickscore, ("torch", "transformers", "PIL")),
    "hpsv2": (hpsv2, ("torch", "hpsv2", "PIL")),
    "hpsv3": (hpsv3, ("torch", "hpsv3")),
    "imagereward": (imagereward, ("torch", "ImageReward")),
    "vqascore": (vqascore, ("torch", "t2v_metrics")),
    "geneval": (geneval, ("torch", "mmdet", "open_clip", "clip_benchmark")),
}


def missing(name: str) -> list[str]:
    """The modules that this environment lacks."""
    return [module for module in SCORES[name][1] if importlib.util.find_spec(module) is None]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=list(SCORES))
    parser.add_argument("manifest", nargs="?")
    parser.add_argument("scores", nargs="?")
    parser.add_argument("--weights", default="")
    parser.add_argument("--code", default="")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # what is missing is an error, not a download
    lacking = missing(options.name)
    if lacking:
        sys.exit("no module " + ", ".join(lacking))
    if options.check:
        return
    with open(options.manifest, encoding="utf-8") as file:
        pictures = json.load(file)["pictures"]
    score = SCORES[options.name][0]
    values = score(pictures, options.weights, options.code)
    with open(options.scores, "w", encoding="utf-8") as file:
        json.dump({"scores": values}, file)


if __name__ == "__main__":
    main()
