"""One fit on many processes: members of an ensemble, or rows of the data, spread over ranks."""

from ._parallel import DataParallel
from ._sharded import Sharded
from ._start import start

__all__ = [
    "DataParallel",
    "Sharded",
    "start",
]
