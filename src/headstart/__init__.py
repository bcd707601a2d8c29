"""Image classifiers by transfer learning: frozen features, extracted once; heads, fitted in seconds.

Importing this package loads neither TensorFlow nor scikit-learn: each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.backbones.tensorflow import FrozenBackbone as FrozenBackbone
    from headstart.backbones.vgg16 import load_weights as load_weights
    from headstart.bundles.bundle import Bundle as Bundle
    from headstart.bundles.bundle import load_bundle as load_bundle
    from headstart.bundles.bundle import save_bundle as save_bundle
    from headstart.bundles.metadata import list_heads as list_heads
    from headstart.cache.reader import FeatureCache as FeatureCache
    from headstart.cache.reader import open_cache as open_cache
    from headstart.doctor.examine import examine_machine as examine_machine
    from headstart.errors import HeadstartError as HeadstartError
    from headstart.evaluate.quality_report import inspect_quality as inspect_quality
    from headstart.evaluation import evaluate_head as evaluate_head
    from headstart.exchange.export_features import convert as convert
    from headstart.exchange.import_features import import_features as import_features
    from headstart.exchange.keras_file import export_keras as export_keras
    from headstart.exchange.merge_caches import merge_caches as merge_caches
    from headstart.exchange.onnx_file import export_onnx as export_onnx
    from headstart.explain.explanations import explain_images as explain_images
    from headstart.extract.estimate import forecast_extraction as forecast_extraction
    from headstart.extract.options import ExtractOptions as ExtractOptions
    from headstart.extract.run import extract_features as extract_features
    from headstart.fit import fit_head as fit_head
    from headstart.heads.catalogue import default_spec as default_spec
    from headstart.heads.catalogue import make_head as make_head
    from headstart.heads.class_mean import ClassMeanHead as ClassMeanHead
    from headstart.heads.dense import DenseHead as DenseHead
    from headstart.heads.neighbours import NeighboursHead as NeighboursHead
    from headstart.heads.ridge import RidgeHead as RidgeHead
    from headstart.heads.svm import LinearSVMHead as LinearSVMHead
    from headstart.heads.svm import RBFSVMHead as RBFSVMHead
    from headstart.heads.transforms import SqrtL2Scaler as SqrtL2Scaler
    from headstart.heads.transforms import design_matrix as design_matrix
    from headstart.labelling.clustering import cluster_images as cluster_images
    from headstart.labelling.clustering import make_class_folders as make_class_folders
    from headstart.labelling.suggestions import suggest_images as suggest_images
    from headstart.outside_images import score_outside as score_outside
    from headstart.predict import Predictor as Predictor
    from headstart.repair import repair_cache as repair_cache
    from headstart.selection.compare import compare_heads as compare_heads
    from headstart.selection.comparison_setup import CompareOptions as CompareOptions
    from headstart.selection.search import search_head as search_head
    from headstart.types import HeadSpec as HeadSpec
    from headstart.types import Recipe as Recipe
    from headstart.verify import verify_cache as verify_cache

__version__ = "0.1.0"

#: Where each public name lives.
_HOMES = {
    "Bundle": "bundles.bundle",
    "ClassMeanHead": "heads.class_mean",
    "CompareOptions": "selection.comparison_setup",
    "DenseHead": "heads.dense",
    "ExtractOptions": "extract.options",
    "FeatureCache": "cache.reader",
    "FrozenBackbone": "backbones.tensorflow",
    "HeadSpec": "types",
    "HeadstartError": "errors",
    "LinearSVMHead": "heads.svm",
    "NeighboursHead": "heads.neighbours",
    "Predictor": "predict",
    "RBFSVMHead": "heads.svm",
    "Recipe": "types",
    "RidgeHead": "heads.ridge",
    "SqrtL2Scaler": "heads.transforms",
    "cluster_images": "labelling.clustering",
    "compare_heads": "selection.compare",
    "convert": "exchange.export_features",
    "default_spec": "heads.catalogue",
    "design_matrix": "heads.transforms",
    "evaluate_head": "evaluation",
    "examine_machine": "doctor.examine",
    "explain_images": "explain.explanations",
    "export_keras": "exchange.keras_file",
    "export_onnx": "exchange.onnx_file",
    "extract_features": "extract.run",
    "fit_head": "fit",
    "forecast_extraction": "extract.estimate",
    "import_features": "exchange.import_features",
    "inspect_quality": "evaluate.quality_report",
    "list_heads": "bundles.metadata",
    "load_bundle": "bundles.bundle",
    "load_weights": "backbones.vgg16",
    "make_class_folders": "labelling.clustering",
    "make_head": "heads.catalogue",
    "merge_caches": "exchange.merge_caches",
    "open_cache": "cache.reader",
    "repair_cache": "repair",
    "save_bundle": "bundles.bundle",
    "suggest_images": "labelling.suggestions",
    "verify_cache": "verify",
    "score_outside": "outside_images",
    "search_head": "selection.search",
}

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604  # names by their homes


def __getattr__(name: str) -> Any:
    """Import a public name from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'headstart' has no attribute {name!r}")
    return getattr(importlib.import_module(f"headstart.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
