"""One camera feeds a classifier and a retrieval head in a cloud with one stream of features.

Run it with: python examples/one_camera_two_tasks.py
"""

import torch
from torch import nn

from limosa import Step
from limosa.exchange.feature_client import FeatureClient
from limosa.exchange.feature_service.server import Server
from limosa.exchange.feature_service.service import FeatureService

FRAMES, SIZE = 24, 64


class Retrieval(nn.Module):
    """Features to a vector of unit length, whose products say how alike two images are."""

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """(n, channels, height, width) to (n, 4 * channels)."""
        pooled = nn.functional.adaptive_avg_pool2d(features, 2).flatten(1)
        return {"vector": nn.functional.normalize(pooled - pooled.mean(1, keepdim=True))}


def network() -> nn.Module:
    """Small and untrained; a real camera would have a real one."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    ).eval()


def scene() -> torch.Tensor:
    """A photograph, (3, height, width): scikit-image's astronaut, or waves where that is not."""
    try:
        from skimage import data
    except ImportError:
        y, x = torch.meshgrid(torch.arange(512.0), torch.arange(512.0), indexing="ij")
        waves = [torch.sin(x / (9 + c) + y / 17) + torch.cos(y / (23 - c)) for c in range(3)]
        return torch.stack(waves) / 4 + 0.5
    return torch.from_numpy(data.astronaut()).permute(2, 0, 1) / 255


def camera() -> list[torch.Tensor]:
    """Frames of a camera that pans slowly."""
    picture = nn.functional.interpolate(scene()[None], scale_factor=0.25, mode="area")
    return [picture[:, :, n // 2 : n // 2 + SIZE, n : n + SIZE] for n in range(FRAMES)]


model, frames = network(), camera()
tasks = {"class": "tail", "find": Retrieval()}
with (
    Server(FeatureService(model, "3", tasks)) as cloud,
    FeatureClient(cloud.url, model, quality=Step(0.05)) as front_end,
):
    print("the cloud needs", front_end.service["need"], "for", list(front_end.service["tasks"]))
    first = None
    for number, answers in enumerate(front_end.stream(frames)):
        vector = answers["find"]["vector"][0]
        first = vector if first is None else first
        if number % 6 == 0:
            best = int(answers["class"]["output"].argmax())
            print(f"frame {number}: class {best}, alike to the first: {float(first @ vector):.3f}")
    traffic = front_end.traffic

print(f"{traffic.inputs} frames, {len(tasks)} tasks, {traffic.features} features")
print(f"{traffic.sent:,} bytes; the pixels are {FRAMES * 3 * SIZE * SIZE:,} bytes")
