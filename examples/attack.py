"""Handwritten digits under attack: clean and attacked explanations side by side at every look.

    python examples/attack.py

needs scikit-learn, whose digits are bundled, and takes half a minute on two cores.
"""

from __future__ import annotations

from pathlib import Path

from digits import DigitsData, LitDigits
from pytorch_lightning import Trainer, seed_everything
from torchvision.transforms.functional import to_pil_image

from lightning_gradcam import PGD, GradCAMCallback


def main(epochs: int = 4, root: str = ".") -> Path:
    """Train, and return where the last look's picture lies."""
    seed_everything(0)
    explanations = GradCAMCallback(attack=PGD(eps=0.03, steps=10), probe=10)  # the line to copy
    trainer = Trainer(
        max_epochs=epochs, default_root_dir=root, callbacks=[explanations], accelerator="cpu", log_every_n_steps=10
    )
    trainer.fit(LitDigits(), datamodule=DigitsData())
    assert explanations.monitor is not None
    look = explanations.monitor.take_snapshot(trainer.lightning_module, f"after {epochs} epochs")
    picture = Path(root, "attack.jpg")
    to_pil_image(look.figures["features"].cpu()).save(picture, quality=90)
    print({name: round(float(value), 3) for name, value in look.numbers.items() if name.startswith("adv")})
    print(f"The last look: {picture}")
    return picture


if __name__ == "__main__":
    main()
