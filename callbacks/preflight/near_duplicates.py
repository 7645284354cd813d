"""Which pictures are the same but for format, size, quality or a little noise, by perceptual hashes."""

import base64
from collections.abc import Sequence

import numpy as np

HASH_BYTES = 32  # of 256 bits; the colours follow
BITS, LEVELS = 24, 16  # unrelated radiographs of VQA-RAD differ in 70 bits or more
AT_ONCE = 256


def near_duplicates(hashes: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """For each of the `hashes` the place of the nearest of the `others`, or -1 where none is near: `[len(hashes)]`.

    Near are pictures whose perceptual hashes differ in at most 24 of 256 bits, and whose colours in at most 16 of 255
    levels on average. Hashes are those of `vlm_recipes.rows.pictures.inspect_picture`: base64 of 32 bytes and of 4×4
    RGB pixels.
    """
    (bits, colours), (other_bits, other_colours) = _unpack(hashes), _unpack(others)
    nearest = np.full(len(hashes), -1)
    for start in range(0, len(hashes) if len(others) else 0, AT_ONCE):
        some = slice(start, start + AT_ONCE)
        differing = sum(
            np.bitwise_count(bits[some, None, i] ^ other_bits[None, :, i]).astype(np.int16)
            for i in range(bits.shape[1])
        )
        rows, places = np.nonzero(differing <= BITS)
        levels = np.abs(colours[some][rows] - other_colours[places]).mean(axis=1)
        order = np.argsort(-differing[rows, places], kind="stable")  # the nearest is written last
        near = order[levels[order] <= LEVELS]
        nearest[start + rows[near]] = places[near]
    return nearest


def _unpack(hashes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    data = np.frombuffer(b"".join(map(base64.b64decode, hashes)), np.uint8)
    data = data.reshape(len(hashes), -1) if len(hashes) else np.zeros((0, HASH_BYTES), np.uint8)
    return np.ascontiguousarray(data[:, :HASH_BYTES]).view(np.uint64), data[:, HASH_BYTES:].astype(np.int16)
