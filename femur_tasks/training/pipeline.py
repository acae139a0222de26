"""The input pipeline: shard names in, batches out, in an order drawn from (seed, epoch)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from femur_tasks.dataset.resize import shrink_image, shrink_mask
from femur_tasks.dataset.shards import Shard
from femur_tasks.errors import FemurError
from femur_tasks.training.augmentation import augment
from femur_tasks.training.hyperparameters import Augmentation

Array = np.ndarray[Any, np.dtype[Any]]
NONE = Augmentation()


class Batches:
    """Batches of one split: uint8 pictures and masks, (batch, size, size, 1), cached after their first reading.

    Args:
        names: keys of the shards.
        load: shard name -> shard; called once a name.
        cases: how many cases the shards hold.
        size: training size; shards of another size are resized by area as they are read.
        batch_size: cases a batch, the last one may be smaller.

    Attributes:
        failure: why a shard could not be read; TensorFlow raises an error of its own for it.
    """

    def __init__(
        self, names: Sequence[str], load: Callable[[str], Shard], cases: int, size: int, batch_size: int
    ) -> None:
        self.cases = cases
        self.failure: FemurError | None = None
        self._batch_size = batch_size

        def read(name: bytes) -> tuple[Array, Array]:
            try:
                shard = load(name.decode())
            except FemurError as err:
                self.failure = err
                raise
            images, masks = shard.images_bhw, shard.masks_bhw
            if images.shape[1] != size:
                images = np.stack([shrink_image(image, size) for image in images])
                masks = np.stack([shrink_mask(mask, size) for mask in masks])
            return images[..., None], masks[..., None]

        def shaped(name: Any) -> tuple[Any, Any]:
            images, masks = tf.numpy_function(read, [name], (tf.uint8, tf.uint8))
            shape = (None, size, size, 1)
            return tf.ensure_shape(images, shape), tf.ensure_shape(masks, shape)

        plain = tf.autograph.experimental.do_not_convert(shaped)  # a killed process would leave its source in /tmp
        read_cases = tf.data.Dataset.from_tensor_slices(list(names)).map(plain).unbatch()
        # the length is said aloud: without it Keras takes the end of each epoch for lost data
        self._cached = read_cases.apply(tf.data.experimental.assert_cardinality(cases)).cache()

    def epoch(self, seed: int, epoch: int, augmentation: Augmentation = NONE) -> Any:
        """The dataset of one training epoch; the same (seed, epoch) gives the same order in every process.

        With augmentation each case is drawn anew from (seed, epoch, its place in the shards), and few cases come
        several times, so that an epoch has at least `FEW_CASES`. TensorFlow mixes its global seed into the order;
        `networks.compiled` sets it to the same one.
        """
        order_seed = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
        passes = augmentation.passes(self.cases)
        places = self._cached.repeat(passes).enumerate()
        shuffled = places.shuffle(self.cases * passes, seed=order_seed, reshuffle_each_iteration=False)

        def drawn(place: Any, image: Array, mask: Array) -> tuple[Array, Array]:
            random = np.random.default_rng([seed, epoch, int(place)])
            image_hw, mask_hw = augment(image[..., 0], mask[..., 0], augmentation, random)
            return image_hw[..., None], mask_hw[..., None]

        def case(place: Any, pair: Any) -> Any:
            if not augmentation.strength:
                return pair
            image, mask = tf.numpy_function(drawn, [place, *pair], (tf.uint8, tf.uint8))
            return tf.ensure_shape(image, pair[0].shape), tf.ensure_shape(mask, pair[1].shape)

        plain = tf.autograph.experimental.do_not_convert(case)
        cases = shuffled.map(plain, num_parallel_calls=tf.data.AUTOTUNE if augmentation.strength else None)
        return cases.batch(self._batch_size).prefetch(tf.data.AUTOTUNE)

    def steps(self, augmentation: Augmentation = NONE) -> int:
        """Batches in an epoch."""
        return math.ceil(self.cases * augmentation.passes(self.cases) / self._batch_size)

    def in_order(self) -> Iterator[tuple[Array, Array]]:
        """Batches in the order of the shards, for validation."""
        return iter(self._cached.batch(self._batch_size).prefetch(tf.data.AUTOTUNE).as_numpy_iterator())
