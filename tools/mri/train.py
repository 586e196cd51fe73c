"""Train, measure and export the two small brain-MRI classifiers: `python -m tools.mri.train --model vgg|resnet|all`.

A fixed schedule on one thread, so that a seed decides everything; the weights exported are those after the last epoch,
not the ones that did best on the held-back slices. The sample images are written as well.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.mri.export import export
from tools.mri.measure import accuracy, attribution
from tools.mri.networks import MEAN, STD, resnet, vgg
from tools.mri.samples import write_samples
from tools.mri.slices import LesionSlices, load_template

MODELS = {"vgg": vgg, "resnet": resnet}
EPOCHS = {"vgg": 8, "resnet": 12}
BATCH = 32
PEAK_LEARNING_RATE = {"vgg": 1.5e-3, "resnet": 3e-3}
FOLDER = Path(__file__).parents[2] / "graphs" / "models"

Arrays = tuple[Tensor, Tensor, Tensor]


def collect(dataset: LesionSlices) -> Arrays:
    """The whole set in memory: images float32 [count, 1, H, W] as a network wants them, labels [count], masks bool."""
    images, labels, masks = zip(*(dataset[index] for index in range(len(dataset))), strict=True)
    pixels = torch.from_numpy(np.stack(images))[:, None]
    return (pixels - MEAN) / STD, torch.tensor(labels), torch.from_numpy(np.stack(masks))


def fit(network: nn.Module, images: Tensor, labels: Tensor, epochs: int, peak: float) -> None:
    """Train in place; half of the images are mirrored anew in every epoch. Leaves the network ready for inference."""
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=0.15)
    network.train()
    for epoch in range(epochs):
        started, right, loss_sum = time.monotonic(), 0, 0.0
        order = torch.randperm(len(images))[: len(images) // BATCH * BATCH]
        for batch in order.split(BATCH):
            mirrored = torch.rand(BATCH, 1, 1, 1) < 0.5
            x = torch.where(mirrored, images[batch].flip(-1), images[batch])
            logits = network(x)
            loss = functional.cross_entropy(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            right += int((logits.argmax(1) == labels[batch]).sum())
            loss_sum += float(loss.detach()) * BATCH
        seconds = time.monotonic() - started
        print(f"epoch {epoch + 1}/{epochs}: loss {loss_sum / len(order):.4f}, "
              f"accuracy {right / len(order):.4f}, {seconds:.0f} s", flush=True)  # fmt: skip
    network.eval()


@click.command(help=__doc__)
@click.option("--model", "choice", type=click.Choice([*MODELS, "all"]), default="all", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--train-count", default=12_000, show_default=True, help="Images to train on.")
@click.option("--held-back-count", default=3_000, show_default=True, help="Images to measure on.")
@click.option("--epochs", type=int, help="Instead of the model's own number.")
@click.option("--out", default=FOLDER, show_default="graphs/models", type=click.Path(path_type=Path, file_okay=False))
def main(choice: str, seed: int, train_count: int, held_back_count: int, epochs: int | None, out: Path) -> None:
    """Do it; see the module."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    template = load_template()
    started = time.monotonic()
    images, labels, _ = collect(LesionSlices(template, "train", train_count, seed))
    held_back = collect(LesionSlices(template, "held-back", held_back_count, seed))
    print(f"{train_count} + {held_back_count} images made in {time.monotonic() - started:.0f} s", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    for name in MODELS if choice == "all" else [choice]:
        torch.manual_seed(seed)
        network = MODELS[name]()
        print(f"\n{name}: {sum(p.numel() for p in network.parameters())} parameters", flush=True)
        fit(network, images, labels, epochs or EPOCHS[name], PEAK_LEARNING_RATE[name])
        print(accuracy(network, *held_back[:2]))
        print(attribution(network, *held_back))
        print(export(network, out / f"mri_{name}.onnx", held_back[0][:64]), flush=True)
    write_samples(LesionSlices(template, "held-back", held_back_count, seed), out / "samples")


if __name__ == "__main__":
    main()
