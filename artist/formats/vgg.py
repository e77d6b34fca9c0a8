"""Weights of VGG16, for the perceptual loss."""

from pathlib import Path

from artist.formats.state_dict import load_strict, read_state
from artist.models.perceptual import VGGFeatures

_OTHER_PARTS = "classifier."  # in torchvision's file, not used here


def load_vgg(path: Path) -> VGGFeatures:
    """Load VGG16's convolutions from torchvision's file, or from one with the same tensors.

    Raises:
        InputError: The file cannot be read, or its tensors are not VGG16's.
    """
    advice = "Give torchvision's vgg16-397923af.pth."
    state = read_state(path, "cannot be read as VGG16's weights", advice)
    tensors = {k: v for k, v in state.items() if not k.startswith(_OTHER_PARTS)}
    model = VGGFeatures()
    load_strict(model, tensors, str(path))
    return model.eval()
