"""Many fits as one: training, selecting, and predicting with an ensemble."""

from ._calibration import calibration_error, coverage, quantile_calibration_error
from ._ensemble import Ensemble
from ._ensemble_predictive import EnsemblePredictive
from ._stacked import EnsembleRunResult, EnsembleState
from ._uncertainty import ClassPrediction, Prediction

__all__ = [
    "ClassPrediction",
    "Ensemble",
    "EnsemblePredictive",
    "EnsembleRunResult",
    "EnsembleState",
    "Prediction",
    "calibration_error",
    "coverage",
    "quantile_calibration_error",
]
