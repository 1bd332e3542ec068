"""How fast samples are drawn, beside the published loop, other libraries and what the machine can do."""

from .flows import bench_flows
from .sampling import bench_sampling
from .suite import bench_suite

__all__ = ["bench_flows", "bench_sampling", "bench_suite"]
