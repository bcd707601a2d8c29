"""The baseline: feature extraction as the Keras tutorials do it. One folder in, one float32 HDF5 file out."""

from __future__ import annotations

import sys

import h5py
import keras
import numpy as np

from headstart.backbone.weights import load_weights

folder, output = sys.argv[1:]
model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(224, 224, 3))
for layer, tensors in load_weights().tensors.items():  # in place of the download of weights="imagenet"
    model.get_layer(layer).set_weights(tensors)
data = keras.utils.image_dataset_from_directory(folder, image_size=(224, 224), batch_size=32, shuffle=False)
images = data.map(lambda x, _y: keras.applications.vgg16.preprocess_input(x))
features = model.predict(images, verbose=0)
labels = np.concatenate([y for _x, y in data])
with h5py.File(output, "w") as file:
    file["features"], file["labels"] = features, labels
