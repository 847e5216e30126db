from typing import NamedTuple

from torch import Tensor

class ScoreParts(NamedTuple):
    log_prob: Tensor
    score_function: Tensor | float
    entropy_term: Tensor | float
    def scale_and_mask(
        self, scale: Tensor | float = 1.0, mask: Tensor | bool | None = None
    ) -> ScoreParts: ...
