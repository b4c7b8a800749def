"""Training steps without data: how many images a second the network and its optimizer take.

    python -m benchmarks.train [--steps 15] [--batches 32 256]

Both trunks on the GPU if there is one, else on the CPU; bfloat16 autocast, channels last,
deterministic, as `utility-gate train` runs them. The difference from a run's own
`images_per_second` is what waits for data, copies it, and logs.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch.nn import functional as F

from utility_gate.training.module import ARCHITECTURES, UtilityNet

SIDE = 224
WARM_UP = 5


def images_per_second(arch: str, batch: int, device: str, steps: int) -> float:
    """Of whole training steps on one batch of noise."""

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    net = UtilityNet(arch).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4)
    images = torch.randn(batch, 3, SIDE, SIDE, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, 2, (batch,), device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            logits = net(images)
        loss = F.cross_entropy(logits.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(WARM_UP):
        step()
    wait()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    return steps * batch / (time.perf_counter() - started)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 256])
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.use_deterministic_algorithms(True, warn_only=True)
    name = (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    )
    print(f"{name}, {SIDE} pixels, images a second\n\n| trunk | batch | |\n|---|---|---|")
    for arch in ARCHITECTURES:
        for batch in options.batches:
            pace = images_per_second(arch, batch, device, options.steps)
            print(f"| {arch} | {batch} | {pace:.0f} |", flush=True)


if __name__ == "__main__":
    main()
