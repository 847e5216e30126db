"""One fit on many processes: members of an ensemble, or rows of the data, spread over ranks."""

from ._data_parallel import DataParallel
from ._process_group import start
from ._sharded_ensemble import Sharded

__all__ = [
    "DataParallel",
    "Sharded",
    "start",
]
