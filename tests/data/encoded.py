"""Encoded images for tests: any image as bytes and as base64."""

import base64
import io

from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()
