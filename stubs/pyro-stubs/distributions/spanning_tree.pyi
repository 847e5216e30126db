from collections.abc import Mapping

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

class SpanningTree(TorchDistribution):
    edge_logits: Tensor
    num_vertices: int
    sampler_options: Mapping[str, object]
    def __init__(
        self,
        edge_logits: Tensor,
        sampler_options: Mapping[str, object] | None = None,
        validate_args: bool | None = None,
    ) -> None: ...
    @property
    def log_partition_function(self) -> Tensor: ...
    @property
    def edge_mean(self) -> Tensor: ...
    def validate_edges(self, edges: Tensor) -> None: ...

def make_complete_graph(num_vertices: int, backend: str = "python") -> Tensor: ...
def sample_tree_mcmc(edge_logits: Tensor, edges: Tensor, backend: str = "python") -> Tensor: ...
def sample_tree_approx(edge_logits: Tensor, backend: str = "python") -> Tensor: ...
def sample_tree(
    edge_logits: Tensor,
    init_edges: Tensor | None = None,
    mcmc_steps: int = 1,
    backend: str = "python",
) -> Tensor: ...
def find_best_tree(edge_logits: Tensor, backend: str = "python") -> Tensor: ...

NUM_SPANNING_TREES: list[int]

def enumerate_spanning_trees(V: int) -> list[list[tuple[int, int]]]: ...
