"""SimCLR's views by torchvision on Pillow: one of each picture, normalised, in one batch."""

import ground
import torch
import torchvision
from torchvision import transforms as T


def recipe(size):
    return T.Compose(
        [
            T.RandomResizedCrop(size, scale=(0.2, 1.0)),
            T.RandomHorizontalFlip(),
            T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            T.RandomGrayscale(p=0.2),
            T.ToTensor(),
            T.Normalize([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
        ]
    )


if __name__ == "__main__":
    import PIL
    from PIL import Image

    args = ground.settings(size=32, count=512, repeats=5)
    torch.set_num_threads(ground.THREADS)
    torch.manual_seed(0)
    view = recipe(args.size)
    # The pictures are decoded before, on both sides.
    images = [Image.fromarray(pixels) for pixels in ground.pictures(args.count, args.size, 3)]
    seconds = ground.repeated(args.repeats, lambda: torch.stack([view(image) for image in images]))
    ground.answer(f"torchvision {torchvision.__version__}, Pillow {PIL.__version__}", seconds, images=args.count)
