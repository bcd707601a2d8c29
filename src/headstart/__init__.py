"""Image classifiers by transfer learning: frozen features, extracted once; heads, fitted in seconds."""

__version__ = "0.1.0"
